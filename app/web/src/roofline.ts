/* The roofline: what a layer could reach by its arithmetic per byte, and what it does (Williams et al. 2009). */

import { Profile, is3x3, products } from "./profile";
import { draw, picture } from "./svg";

const WIDTH = 960;
const HEIGHT = 420;
const LEFT = 58;
const RIGHT = WIDTH - 12;
const TOP = 14;
const BOTTOM = HEIGHT - 44;

interface Point {
  variant: string;
  intensity: number;
  rate: number;
  strong: boolean;
  title: string;
}

export function roofline(profile: Profile): Element {
  const points = pointsOf(profile);
  const peaks = Object.entries(profile.variants).map(([name, { peak_macs_per_second: peak }]) => ({ name, peak: peak ?? 0 }));
  const intensities = points.map((point) => point.intensity);
  const rates = [...points.map((point) => point.rate), ...peaks.map(({ peak }) => peak)].filter((rate) => rate > 0);
  const x = logScale(Math.min(...intensities, 1), Math.max(...intensities) * 1.5, LEFT, RIGHT);
  const y = logScale(Math.min(...rates) / 1.5, Math.max(...rates) * 1.6, BOTTOM, TOP);
  const parts = [...axis(x, y)];
  for (const { name, peak } of peaks.filter(({ peak: value }) => value > 0)) {
    parts.push(draw("line", { class: `roof ${name}`, x1: LEFT, x2: RIGHT, y1: y.place(peak), y2: y.place(peak) }));
    parts.push(draw("text", { class: "tick end", x: RIGHT, y: y.place(peak) - 5 }, `${name}: ${(peak / 1e9).toFixed(0)} GMAC/s`));
  }
  const highest = Math.max(...peaks.map(({ peak }) => peak));
  for (const [name, rate] of Object.entries({ "from L2": profile.reads?.within, "from behind it": profile.reads?.beyond })) {
    if (rate) parts.push(...slope(name, rate, highest, x, y));
  }
  for (const point of points) {
    const dot = { class: `dot ${point.variant}${point.strong ? " strong" : ""}`, cx: x.place(point.intensity), cy: y.place(point.rate), r: 5 };
    parts.push(draw("circle", dot, draw("title", {}, point.title)));
  }
  return picture(WIDTH, HEIGHT, "Roofline: rate of each layer over its multiply-accumulates per byte", ...parts);
}

function pointsOf(profile: Profile): Point[] {
  const variants = Object.keys(profile.variants);
  return products(profile).flatMap(({ name, layerClass, rows }) =>
    rows.flatMap((row, index) => {
      if (!row || !row.bytes_moved || !row.milliseconds) return [];
      const rate = row.macs / (row.milliseconds / 1000);
      const intensity = row.macs / row.bytes_moved;
      const title = `${name}, ${layerClass}\n${(rate / 1e9).toFixed(0)} GMAC/s, ${intensity.toFixed(0)} MAC per byte`;
      return [{ variant: variants[index] ?? "", intensity, rate, strong: is3x3(layerClass), title }];
    }),
  );
}

interface Scale {
  low: number;
  high: number;
  place(value: number): number;
}

function logScale(low: number, high: number, from: number, to: number): Scale {
  const span = Math.log(high / low);
  return { low, high, place: (value) => from + (Math.log(value / low) / span) * (to - from) };
}

function decades({ low, high }: Scale): number[] {
  const found = [];
  for (let value = 10 ** Math.ceil(Math.log10(low)); value <= high; value *= 10) found.push(value);
  return found;
}

function axis(x: Scale, y: Scale): SVGElement[] {
  const parts = [];
  for (const value of decades(x)) {
    parts.push(draw("line", { class: "grid", x1: x.place(value), x2: x.place(value), y1: TOP, y2: BOTTOM }));
    parts.push(draw("text", { class: "tick middle", x: x.place(value), y: BOTTOM + 16 }, String(value)));
  }
  for (const value of decades(y)) {
    parts.push(draw("line", { class: "grid", x1: LEFT, x2: RIGHT, y1: y.place(value), y2: y.place(value) }));
    parts.push(draw("text", { class: "tick end", x: LEFT - 6, y: y.place(value) + 4 }, String(value / 1e9)));
  }
  parts.push(draw("text", { class: "tick middle", x: (LEFT + RIGHT) / 2, y: HEIGHT - 8 }, "multiply-accumulates per byte moved"));
  parts.push(draw("text", { class: "tick middle", transform: `translate(14 ${(TOP + BOTTOM) / 2}) rotate(-90)` }, "GMAC/s"));
  return parts;
}

/** A bandwidth as a line, up to the highest peak. */
function slope(name: string, rate: number, peak: number, x: Scale, y: Scale): SVGElement[] {
  const first = Math.max(x.low, y.low / rate);
  const last = Math.min(x.high, peak / rate);
  if (last <= first) return [];
  const middle = Math.sqrt(first * last);
  return [
    draw("line", { class: "roof", x1: x.place(first), y1: y.place(first * rate), x2: x.place(last), y2: y.place(last * rate) }),
    draw("text", { class: "tick", x: x.place(middle) + 8, y: y.place(middle * rate) + 12 }, `${name}: ${(rate / 1e9).toFixed(0)} GB/s`),
  ];
}
