/* What the service does now: GET /v1/live, one event a second, five minutes of it. */

import uPlot from "uplot";

import { byId, make } from "./elements";
import { VARIANTS, Variant } from "./service";

const KEPT = 300; // seconds
const HEIGHT = 150;
const COLOURS: Record<Variant, string> = { baseline: "--decode", optimised: "--compute" };

interface VariantNow {
  images_per_second: number;
  p50_ms: number | null;
  p99_ms: number | null;
  batch_size: number | null;
  peak_share: number | null;
}

interface Snapshot {
  time: number;
  queue: number;
  busy: number;
  variants: Partial<Record<Variant, VariantNow>>;
}

const FIGURES: { title: string; of: (now: VariantNow) => number | null }[] = [
  { title: "images/s", of: (now) => now.images_per_second },
  { title: "p99, ms", of: (now) => now.p99_ms },
  { title: "mean batch", of: (now) => now.batch_size },
  { title: "share of the peak, %", of: (now) => (now.peak_share === null ? null : now.peak_share * 100) },
];

const snapshots: Snapshot[] = [];

export function follow(): void {
  const charts = FIGURES.map(({ title }) => chart(title));
  const events = new EventSource("/v1/live"); // which comes back by itself after a restart
  events.onmessage = (event) => {
    snapshots.push(JSON.parse(event.data) as Snapshot);
    if (snapshots.length > KEPT) snapshots.shift();
    if (document.hidden) return;
    for (const [index, { of }] of FIGURES.entries()) charts[index]?.setData(columns(of));
    const now = snapshots[snapshots.length - 1];
    if (now) byId("now").textContent = `Queue ${now.queue}, engine busy ${(now.busy * 100).toFixed(0)} % of the last minute.`;
  };
  events.onerror = () => {
    byId("now").textContent = "The service does not answer. Trying again.";
  };
  addEventListener("resize", () => charts.forEach((drawn) => drawn.setSize({ width: widthOf(drawn), height: HEIGHT })));
}

function columns(of: (now: VariantNow) => number | null): uPlot.AlignedData {
  const series = VARIANTS.map((variant) => snapshots.map((each) => (each.variants[variant] ? of(each.variants[variant]) : null)));
  return [snapshots.map((each) => each.time), ...series];
}

function chart(title: string): uPlot {
  const colour = (name: string) => () => getComputedStyle(document.documentElement).getPropertyValue(name);
  const place = make("figure", "chart", make("figcaption", "", title));
  byId("charts").append(place);
  const axis = { stroke: colour("--quiet"), grid: { stroke: colour("--line"), width: 1 }, ticks: { show: false } };
  return new uPlot(
    {
      width: place.clientWidth,
      height: HEIGHT,
      legend: { show: false },
      cursor: { show: false },
      scales: { y: { range: (_, __, highest) => [0, Math.max(1, (highest ?? 0) * 1.15)] } },
      axes: [{ ...axis, space: 80 }, { ...axis, size: 44 }],
      series: [{}, ...VARIANTS.map((name) => ({ label: name, stroke: colour(COLOURS[name]), width: 2, points: { show: false } }))],
    },
    [[], ...VARIANTS.map(() => [])] as unknown as uPlot.AlignedData,
    place,
  );
}

function widthOf(drawn: uPlot): number {
  return drawn.root.parentElement?.clientWidth ?? 0;
}
