/* Why: where in the photo a label's score comes from, drawn over it. */

import { make } from "./elements";
import { Answer, HeatMap, Model, Prediction, Variant, classify, fetchDocument } from "./service";

const RESOLUTION = 224; // pixels of the drawn map, far more than it has places
const FOR = [255, 110, 0] as const; // what speaks for the label, and what against it
const AGAINST = [0, 90, 255] as const;
const STRONGEST = 0.75; // how much the largest value hides of the photo

let model: Model | null = null;

/** What is served: which variants explain, and what the network sees of a photo. Null until the service tells. */
export async function served(): Promise<Model | null> {
  model ??= (await fetchDocument("/v1/models"))?.models?.[0] ?? null;
  return model;
}

/** A button that shows the maps of a card, or nothing where the variant has none. */
export function button(photo: Blob, variant: Variant): Node[] {
  if (!model?.variants.find(({ name }) => name === variant)?.explains) return [];
  const toggle = make("button", "", "Why?");
  toggle.type = "button";
  toggle.ariaExpanded = "false";
  const place = make("div", "why");
  place.hidden = true;
  toggle.onclick = async () => {
    if (toggle.ariaBusy) return; // not disabled, which would take the focus from it
    if (!place.firstChild) await fill(place, toggle, photo, variant);
    place.hidden = !place.hidden;
    toggle.ariaExpanded = String(!place.hidden);
  };
  return [toggle, place];
}

async function fill(place: HTMLElement, toggle: HTMLButtonElement, photo: Blob, variant: Variant): Promise<void> {
  toggle.ariaBusy = "true";
  try {
    place.replaceChildren(...figure(photo, await classify(photo, variant, () => {}, true)));
  } catch (error) {
    const sentence = make("p", "error", error instanceof Error ? error.message : "");
    sentence.role = "alert";
    place.replaceChildren(sentence);
  } finally {
    toggle.ariaBusy = null;
  }
}

function figure(photo: Blob, answer: Answer): Node[] {
  const image = make("img");
  const map = make("canvas");
  map.width = map.height = RESOLUTION;
  map.role = "img";
  const seen = make("div", "seen", image, map);
  image.alt = "";
  image.src = URL.createObjectURL(photo);
  image.onload = () => {
    URL.revokeObjectURL(image.src);
    lay(map, image);
  };
  image.onerror = () => image.remove(); // a format that the browser does not show: the map alone

  const chosen = make("select", "", ...answer.predictions.map(({ label }, index) => new Option(label, String(index))));
  const caption = make("p", "caption");
  const largest = Math.max(...answer.predictions.flatMap(({ heat_map }) => heat_map?.values.map(Math.abs) ?? []));
  chosen.onchange = () => {
    const prediction = answer.predictions[Number(chosen.value)];
    if (prediction?.heat_map) draw(map, caption, prediction, prediction.heat_map, largest);
  };
  chosen.dispatchEvent(new Event("change"));
  return [make("label", "", "What speaks for ", chosen), seen, caption];
}

/** Lay the map over the centre that the network sees. The browser has turned the photo upright, as the service does. */
function lay(map: HTMLElement, image: HTMLImageElement): void {
  const { naturalWidth: width, naturalHeight: height } = image;
  const { size, resize } = model?.input ?? { size: 1, resize: 1 };
  const [high, wide] = typeof size === "number" ? [size, size] : size;
  const share = Math.min(width / wide, height / high) * (Math.min(high, wide) / resize); // pixels of the photo for one seen
  for (const [property, part] of [
    ["left", (1 - (share * wide) / width) / 2],
    ["top", (1 - (share * high) / height) / 2],
    ["width", (share * wide) / width],
    ["height", (share * high) / height],
  ] as const) {
    map.style.setProperty(property, `${part * 100}%`);
  }
}

function draw(map: HTMLCanvasElement, caption: HTMLElement, { label }: Prediction, heat: HeatMap, largest: number): void {
  const context = map.getContext("2d");
  if (!context) return;
  const pixels = context.createImageData(RESOLUTION, RESOLUTION);
  for (let y = 0; y < RESOLUTION; y++) {
    for (let x = 0; x < RESOLUTION; x++) {
      const value = at(heat, (x + 0.5) / RESOLUTION, (y + 0.5) / RESOLUTION) / largest;
      pixels.data.set([...(value > 0 ? FOR : AGAINST), Math.abs(value) * STRONGEST * 255], 4 * (y * RESOLUTION + x));
    }
  }
  context.putImageData(pixels, 0, 0);
  map.ariaLabel = `What speaks most for ${label} is ${whereabouts(heat)}.`;
  const [score, bias] = [heat.logit.toFixed(2), heat.bias.toFixed(2)];
  const mean = (Number(score) - Number(bias)).toFixed(2); // of the rounded ones, so that what is read adds up
  caption.textContent =
    `Orange speaks for ${label}, blue against it. ` +
    `The mean of the map, ${mean}, and the bias, ${bias}, are the score: ${score}.`;
}

/** The value at a place, 0 to 1 across and down: bilinear between the centres of the map's places. */
function at({ height, width, values }: HeatMap, across: number, down: number): number {
  const [x, y] = [limit(across * width - 0.5, width), limit(down * height - 0.5, height)];
  const [left, top] = [Math.floor(x), Math.floor(y)];
  const value = (row: number, column: number) => values[Math.min(row, height - 1) * width + Math.min(column, width - 1)] ?? 0;
  const row = (number: number) => value(number, left) + (value(number, left + 1) - value(number, left)) * (x - left);
  return row(top) + (row(top + 1) - row(top)) * (y - top);
}

function limit(place: number, places: number): number {
  return Math.max(0, Math.min(places - 1, place));
}

/** Where what speaks most for a label is, in words. */
function whereabouts({ height, width, values }: HeatMap): string {
  const place = values.indexOf(Math.max(...values));
  const third = (share: number, names: [string, string, string]) => names[Math.floor(share * 3)];
  const words = [
    third((Math.floor(place / width) + 0.5) / height, ["at the top", "", "at the bottom"]),
    third(((place % width) + 0.5) / width, ["on the left", "", "on the right"]),
  ];
  return words.filter(Boolean).join(", ") || "in the middle";
}
