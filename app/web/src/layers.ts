/* Where the time goes, layer by layer: the reference article's table in this machine's figures, and four pictures. */

import { make, milliseconds } from "./elements";
import { Profile, Share, Summary, classes, is3x3, products } from "./profile";
import { roofline } from "./roofline";
import { draw, picture, ticks } from "./svg";

const WIDTH = 960;
const HEIGHT = 300;
const LEFT = 46;
const PLOT = { top: 12, bottom: HEIGHT - 26 };

interface Column {
  label: string;
  title: string;
  values: (number | undefined)[];
  strong: boolean;
}

const percent = (share: number): string => `${(share * 100).toFixed(share < 0.1 ? 1 : 0)} %`;
const whole = (value: number): string => value.toLocaleString("en", { maximumFractionDigits: value < 100 ? 1 : 0 });

/** The table and the pictures; `top5` where labelled photos were counted. */
export function profileViews(profile: Profile, top5?: Share[]): HTMLElement {
  const place = make("div", "profile");
  const views: Record<string, () => Element> = {
    Time: () => perLayer(profile, "milliseconds", "Time of each convolution in milliseconds"),
    "Share of peak": () => perLayer(profile, "peak_share", "Share of the arithmetic peak of each convolution"),
    "By class": () => perClass(profile),
    Roofline: () => roofline(profile),
  };
  const tabs = make("div", "views");
  tabs.role = "tablist";
  tabs.ariaLabel = "Views of the layers";
  const view = make("div", "view");
  view.role = "tabpanel";
  view.tabIndex = 0;
  const choose = (name: string): void => {
    for (const tab of tabs.children) tab.ariaSelected = String(tab.textContent === name);
    view.replaceChildren(views[name]?.() ?? "");
  };
  for (const name of Object.keys(views)) {
    const tab = make("button", "", name);
    tab.type = "button";
    tab.role = "tab";
    tab.onclick = () => choose(name);
    tabs.append(tab);
  }
  choose("Time");
  place.append(comparison(profile, top5), key(profile), tabs, view, figures(profile), origin(profile));
  return place;
}

function comparison(profile: Profile, top5?: Share[]): HTMLElement {
  const all = Object.values(profile.summaries);
  const body = make("tbody");
  const row = (title: string, cells: string[], article: string, ratio = ""): void => {
    const heading = make("th", "", title);
    heading.scope = "row";
    body.append(make("tr", "", heading, ...[...cells, ratio, article].map((cell) => make("td", "", cell))));
  };
  const each = (read: (summary: Summary) => string): string[] => all.map(read);
  const ratio = (read: (summary: Summary) => number): string => {
    const [first, second] = all.map(read);
    return first && second ? `${(first / second).toFixed(2)}×` : "";
  };
  row(`Latency, batch ${profile.batch}`, each((s) => milliseconds(s.milliseconds)), "18.2 → 7.5 ms", ratio((s) => s.milliseconds));
  row("All 3×3 convolutions", each((s) => milliseconds(s.milliseconds_3x3)), "13.1 → 3.2 ms", ratio((s) => s.milliseconds_3x3));
  row("Images per second", each((s) => whole(s.images_per_second)), "879 → 2,133", ratio((s) => 1 / s.images_per_second));
  row("Matrix-unit utilisation", each((s) => percent(s.mac_ratio ?? s.peak_share)), "42 → 88 %");
  row("Buffer reuse: bytes of layers that fit L2", each((s) => percent(s.cache_share)), "28 → 76 %");
  row("Top-5 accuracy", top5 ? top5.map(withInterval) : each(() => "not counted"), "92.8 → 92.5 %");
  const heads = ["", ...Object.keys(profile.summaries), "ratio", "article, on Ascend"];
  const table = make("table", "", make("thead", "", make("tr", "", ...heads.map((head) => make(head ? "th" : "td", "", head)))), body);
  return scrolling("The figures of the article, here and there", table);
}

export function withInterval({ share, low, high }: Share): string {
  return `${(share * 100).toFixed(2)} % (${(low * 100).toFixed(1)} to ${(high * 100).toFixed(1)})`;
}

function key(profile: Profile): HTMLElement {
  const names = Object.keys(profile.variants).map((name) => make("span", name, name));
  return make("p", "key", ...names, "3×3 convolutions in full colour");
}

function perLayer(profile: Profile, field: "milliseconds" | "peak_share", label: string): Element {
  const write = field === "milliseconds" ? milliseconds : percent;
  const columns = products(profile).map(({ name, layerClass, rows }) => ({
    label: "",
    title: [name, layerClass, ...rows.map((row) => (row ? `${write(row[field])} ${row.kernel}` : ""))].join("\n"),
    values: rows.map((row) => row?.[field]),
    strong: is3x3(layerClass),
  }));
  return chart(columns, Object.keys(profile.variants), field === "milliseconds" ? "ms" : "%", label);
}

function perClass(profile: Profile): Element {
  const columns = classes(products(profile)).map(({ name, count, milliseconds: times, shares }) => ({
    label: name.replace(" @", "@"),
    title: [`${name}, ${count} of them`, ...times.map((time, index) => `${milliseconds(time)}, ${percent(shares[index] ?? 0)} of peak`)].join("\n"),
    values: times,
    strong: is3x3(name),
  }));
  return chart(columns, Object.keys(profile.variants), "ms", "Time of each class of convolutions in milliseconds");
}

function chart(columns: Column[], variants: string[], unit: "ms" | "%", label: string): Element {
  const scale = ticks(Math.max(...columns.flatMap((column) => column.values.map((value) => value ?? 0))));
  const most = scale.at(-1) ?? 1;
  const y = (value: number): number => PLOT.bottom - (value / most) * (PLOT.bottom - PLOT.top);
  const step = (WIDTH - LEFT) / columns.length;
  const parts: SVGElement[] = [];
  for (const tick of scale) {
    parts.push(draw("line", { class: "grid", x1: LEFT, x2: WIDTH, y1: y(tick), y2: y(tick) }));
    parts.push(draw("text", { class: "tick end", x: LEFT - 6, y: y(tick) + 4 }, unit === "%" ? `${whole(tick * 100)} %` : tick.toLocaleString("en")));
  }
  for (const [index, column] of columns.entries()) {
    const width = (step * 0.84) / variants.length;
    const bars = column.values.map((value, variant) =>
      draw("rect", {
        class: `column ${variants[variant]}${column.strong ? " strong" : ""}`,
        x: LEFT + index * step + step * 0.08 + variant * width,
        y: y(value ?? 0),
        width: Math.max(1, width - 0.5),
        height: PLOT.bottom - y(value ?? 0),
      }),
    );
    parts.push(draw("g", {}, draw("title", {}, column.title), ...bars));
    if (column.label) {
      parts.push(draw("text", { class: "tick middle", x: LEFT + (index + 0.5) * step, y: HEIGHT - 8 }, column.label));
    }
  }
  return picture(WIDTH, HEIGHT, label, ...parts);
}

/** The same figures as text, for those who do not point at bars. */
function figures(profile: Profile): HTMLElement {
  const variants = Object.keys(profile.variants);
  const heads = ["layer", "class", ...variants.flatMap((name) => [`${name}, ms`, "of peak", "bound by"])];
  const rows = products(profile).map(({ name, layerClass, rows: each }) => {
    const cells = variants.flatMap((_, index) => {
      const row = each[index];
      return row ? [row.milliseconds.toFixed(3), percent(row.peak_share), row.bound ?? ""] : ["", "", ""];
    });
    return make("tr", "", ...[name, layerClass, ...cells].map((cell) => make("td", "", cell)));
  });
  const head = make("thead", "", make("tr", "", ...heads.map((each) => make("th", "", each))));
  return make("details", "", make("summary", "", "All figures"), scrolling("All layers", make("table", "", head, make("tbody", "", ...rows))));
}

/** What may be wider than the screen; it takes the focus, so that arrow keys reach the rest. */
export function scrolling(label: string, content: HTMLElement): HTMLElement {
  const place = make("div", "scrolls", content);
  place.role = "region";
  place.ariaLabel = label;
  place.tabIndex = 0;
  return place;
}

function origin(profile: Profile): HTMLElement {
  const when = new Date(profile.made_at).toLocaleString();
  return make("p", "origin", `${profile.model} on ${profile.machine}, ${when}, Tessera ${profile.tessera}, medians of ${profile.runs} runs.`);
}
