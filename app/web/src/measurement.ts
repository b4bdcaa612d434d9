/* "Measure properly": ten runs of each variant in turns, so that a slow moment hits both. */

import { byId, milliseconds } from "./elements";
import { showRatio } from "./cards";
import { VARIANTS, Variant, classify } from "./service";

const RUNS = 10;

export async function measure(photo: Blob): Promise<void> {
  const times: Record<Variant, number[]> = { baseline: [], optimised: [] };
  for (let run = 0; run < RUNS; run++) {
    for (const variant of VARIANTS) {
      byId("measured").textContent = `Run ${run + 1} of ${RUNS}, ${variant}`;
      times[variant].push((await classify(photo, variant, () => {})).timing.compute_ms);
    }
  }
  showRatio(quantile(times.baseline, 0.5), quantile(times.optimised, 0.5));
  const lines = VARIANTS.map((variant) => {
    const [low, middle, high] = [0.25, 0.5, 0.75].map((share) => milliseconds(quantile(times[variant], share)));
    return `${variant} ${middle} (half of the runs ${low} to ${high})`;
  });
  byId("measured").textContent = `Medians of ${RUNS} runs in turns: ${lines.join(", ")}.`;
}

function quantile(values: number[], share: number): number {
  const sorted = [...values].sort((a, b) => a - b);
  const place = (sorted.length - 1) * share;
  const below = sorted[Math.floor(place)] ?? 0;
  return below + ((sorted[Math.ceil(place)] ?? below) - below) * (place % 1);
}
