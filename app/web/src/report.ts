/* A report of `tessera report`: the same views as the page's, and what the page does not measure. */

import { bar, byId, make, milliseconds } from "./elements";
import { profileViews, scrolling, withInterval } from "./layers";
import { Profile, Share } from "./profile";

interface Measurement {
  variant: string;
  batch: number;
  milliseconds: number;
  images_per_second: number;
  peak_share: number | null;
  speed_up: number;
  speed_up_low: number;
  speed_up_high: number;
  agreement: number;
}

interface Counted {
  top1: Share;
  top5: Share;
  agreement: Share;
  sqnr_db: number | null;
  lost: number;
  gained: number;
}

interface Report {
  model: string;
  machine: string;
  made_at: string;
  command: string;
  versions: Record<string, string>;
  profile: Profile;
  speed: { rounds: number; measurements: Measurement[] };
  left_out: Record<string, string>;
  accuracy: { photos: number; variants: Record<string, Counted> } | null;
  energy: { problem: string; joules_per_image: Record<string, number> };
}

function show(report: Report): void {
  const top5 = report.accuracy ? Object.values(report.accuracy.variants).map((variant) => variant.top5) : undefined;
  byId("report").append(
    make("h1", "", report.model),
    make("p", "origin", `${report.machine}, ${report.made_at}`),
    ...section("Before and after", profileViews(report.profile, top5)),
    ...section("Beside other engines", ...speed(report)),
    ...section("Accuracy", accuracy(report)),
    ...section("Energy", energy(report)),
    ...section("How it was made", make("pre", "", report.command), versions(report)),
  );
}

function section(title: string, ...content: Element[]): Element[] {
  return [make("h2", "", title), ...content];
}

function speed({ speed: { rounds, measurements }, left_out: leftOut }: Report): Element[] {
  const batches = [...new Set(measurements.map((each) => each.batch))];
  const fastest = Math.max(...measurements.map((each) => each.speed_up));
  const tables = batches.map((batch) => {
    const rows = measurements
      .filter((each) => each.batch === batch)
      .map((each) => [
        each.variant,
        milliseconds(each.milliseconds),
        each.images_per_second.toFixed(1),
        each.peak_share === null ? "" : `${(each.peak_share * 100).toFixed(0)} %`,
        `${each.speed_up.toFixed(2)}× (${each.speed_up_low.toFixed(2)} to ${each.speed_up_high.toFixed(2)})`,
        `${(each.agreement * 100).toFixed(1)} %`,
        bar("bar", each.speed_up / fastest),
      ]);
    const heads = [`batch ${batch}`, "latency", "images/s", "of peak", "speed-up over baseline", "same label", ""];
    return scrolling(`Engines at batch ${batch}`, table(heads, rows));
  });
  const missing = Object.entries(leftOut).map(([name, why]) => `${name}: ${why}`);
  const note = `Engines alone, on the same normalised floats in ${rounds} rounds in turns; medians, 95 % intervals. Int8 rows run one file, ours.`;
  return [...tables, make("p", "origin", [note, ...missing.map((each) => `Left out: ${each}.`)].join(" "))];
}

function accuracy({ accuracy: found }: Report): Element {
  if (!found) return make("p", "", "Not counted: no labelled photos were given (--photos FOLDER).");
  const rows = Object.entries(found.variants).map(([name, counted], index) => [
    name,
    withInterval(counted.top1),
    withInterval(counted.top5),
    index ? withInterval(counted.agreement) : "",
    index ? (counted.sqnr_db === null ? "equal" : `${counted.sqnr_db.toFixed(1)} dB`) : "",
    index ? `${counted.lost} / ${counted.gained}` : "",
  ]);
  const heads = [`${found.photos} photos`, "top-1", "top-5", "same label", "SQNR", "lost / gained"];
  return scrolling("Accuracy of the variants", table(heads, rows));
}

function energy({ energy: { problem, joules_per_image: joules } }: Report): Element {
  if (problem) return make("p", "", `Not measured: ${problem}.`);
  const rows = Object.entries(joules).map(([name, value]) => [name, `${(value * 1000).toFixed(1)} mJ`]);
  return table(["processor packages, with all else that ran", "an image"], rows);
}

function versions({ versions: all }: Report): Element {
  return make("p", "origin", Object.entries(all).map(([name, version]) => `${name} ${version}`).join(", "));
}

function table(heads: string[], rows: (string | Node)[][]): HTMLElement {
  const head = make("tr", "", ...heads.map((each) => make(each ? "th" : "td", "", each)));
  const body = rows.map((row) => make("tr", "", ...row.map((cell) => make("td", "", cell))));
  return make("table", "", make("thead", "", head), make("tbody", "", ...body));
}

show(JSON.parse(byId("document").textContent ?? ""));
