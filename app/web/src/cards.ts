/* Two cards side by side: what each variant sees, and where its time went. */

import { bar, byId, make, milliseconds } from "./elements";
import { Answer, Timing, VARIANTS, Variant } from "./service";
import * as why from "./why";

const STAGES = ["decode", "queue", "compute"] as const;
const DESCRIPTIONS: Record<Variant, string> = {
  baseline: "fp32 on ONNX Runtime",
  optimised: "fused, int8, blocked layout, on our engine",
};

export function show(photo: Blob, answers: Record<Variant, Answer>): void {
  const longest = Math.max(...VARIANTS.map((variant) => total(answers[variant].timing)));
  for (const variant of VARIANTS) fill(byId(variant), photo, variant, answers[variant], longest);
  const [first, second] = VARIANTS.map((variant) => answers[variant].predictions[0]?.label);
  const agree = first === second;
  byId("agreement").replaceChildren(make("b", agree ? "good" : "bad", agree ? "They agree" : "They differ"), ` on ${first}.`);
  if (!agree) byId("agreement").append(` Optimised says ${second}.`);
  showRatio(answers.baseline.timing.compute_ms, answers.optimised.timing.compute_ms);
  byId("measured").textContent = "One run of each, one after the other.";
}

export function showRatio(baseline: number, optimised: number): void {
  byId("ratio").replaceChildren(`${(baseline / optimised).toFixed(1)}×`, make("small", "", "as fast, by compute time"));
}

function total(timing: Timing): number {
  return timing.decode_ms + timing.queue_ms + timing.compute_ms;
}

function fill(card: HTMLElement, photo: Blob, variant: Variant, answer: Answer, longest: number): void {
  const ranks = make("ol", "ranks");
  for (const { label, probability } of answer.predictions) {
    const share = `${(probability * 100).toFixed(1)} %`;
    ranks.append(make("li", "", make("span", "label", label), make("span", "share", share), bar("bar", probability)));
  }
  const time = make("div", "time");
  const legend = make("ul", "legend");
  for (const stage of STAGES) {
    const value = answer.timing[`${stage}_ms`];
    time.append(bar(stage, value / longest));
    legend.append(make("li", stage, `${stage} ${milliseconds(value)}`));
  }
  card.replaceChildren(
    make("h3", "", variant, make("small", "", DESCRIPTIONS[variant])),
    ranks,
    make("p", "total", milliseconds(total(answer.timing))),
    time,
    legend,
    ...why.button(photo, variant),
  );
}
