/* Whether the optimised variant is still right: what GET /v1/experiments says, in words. */

import { byId, make } from "./elements";
import { fetchDocument } from "./service";

const EVERY = 5000; // milliseconds

export async function follow(): Promise<void> {
  for (;;) {
    if (!document.hidden) show(await fetchDocument("/v1/experiments"));
    await new Promise((resolve) => setTimeout(resolve, EVERY));
  }
}

function show(experiment: any): void {
  if (!experiment) return; // loading, or restarting: what was known stays
  const shares = Object.entries<number>(experiment.split.live).map(([name, share]) => `${name} ${percent(share)}`);
  const lines: [string, string][] = [["Traffic that names no variant", shares.join(", ")]];
  const { images, agreement, speed_up: speedUp } = experiment.shadow;
  if (images.compared) {
    lines.push(["Same label as the baseline", `${interval(agreement, percent)} of ${images.compared} images`]);
    lines.push(["Speed-up on the same images", interval(speedUp, (value) => `${value.toFixed(2)}×`)]);
  } else {
    lines.push(["Same label as the baseline", "not compared; start with --guard-agreement 0.95 to have it watched"]);
  }
  const { state, why } = experiment.guard;
  lines.push(["Guard", why && state !== "armed" ? `${state}: ${why}` : state]);
  byId("experiment").replaceChildren(...lines.flatMap(([name, value]) => [make("dt", "", name), make("dd", "", value)]));
}

function percent(share: number): string {
  return `${(share * 100).toFixed(1)} %`;
}

function interval(estimate: any, write: (value: number) => string): string {
  const { value, low, high } = estimate;
  return value === null ? "not known yet" : `${write(value)} (95 %: ${write(low)} to ${write(high)})`;
}
