/* What `tessera profile --json` writes and GET /v1/profile answers; see docs/schemas/profile.schema.json. */

export interface Layer {
  name: string;
  kernel: string;
  layer_class: string;
  milliseconds: number;
  macs: number;
  peak_share: number;
  bytes_moved: number;
  bound: string | null;
}

export interface Summary {
  milliseconds: number;
  milliseconds_3x3: number;
  images_per_second: number;
  peak_share: number;
  peak_share_3x3: number;
  macs_per_byte: number;
  cache_share: number;
  mac_ratio: number | null;
}

export interface Profile {
  model: string;
  machine: string;
  made_at: string;
  tessera: string;
  batch: number;
  runs: number;
  variants: Record<string, { backend: string; precision: string; isa: string; peak_macs_per_second: number | null }>;
  reads: { l2_bytes: number; within: number; beyond: number } | null;
  summaries: Record<string, Summary>;
  layers: Record<string, Layer[]>;
}

/** A share with the ends of its interval, 0 to 1. */
export interface Share {
  share: number;
  low: number;
  high: number;
}

/** One convolution or matrix product, as each variant runs it. */
export interface Product {
  name: string;
  layerClass: string;
  rows: (Layer | undefined)[];
}

/** All of them in network order, with the rows of each variant that has them. */
export function products(profile: Profile): Product[] {
  const found = new Map<string, Product>();
  for (const [index, layers] of Object.values(profile.layers).entries()) {
    for (const layer of layers.filter((each) => each.macs > 0)) {
      const product = found.get(layer.name) ?? { name: layer.name, layerClass: layer.layer_class, rows: [] };
      product.rows[index] = layer;
      found.set(layer.name, product);
    }
  }
  return [...found.values()];
}

/** The same put together by class, in network order. */
export function classes(all: Product[]): { name: string; count: number; milliseconds: number[]; shares: number[] }[] {
  const found = new Map<string, Product[]>();
  for (const product of all) found.set(product.layerClass, [...(found.get(product.layerClass) ?? []), product]);
  return [...found].map(([name, members]) => {
    const variants = Math.max(...members.map((member) => member.rows.length));
    const sums = Array.from({ length: variants }, (_, index) => {
      const rows = members.map((member) => member.rows[index]);
      const time = rows.reduce((sum, row) => sum + (row?.milliseconds ?? 0), 0);
      const busy = rows.reduce((sum, row) => sum + (row ? row.peak_share * row.milliseconds : 0), 0);
      return { time, share: time ? busy / time : 0 };
    });
    return { name, count: members.length, milliseconds: sums.map((sum) => sum.time), shares: sums.map((sum) => sum.share) };
  });
}

export const is3x3 = (layerClass: string): boolean => layerClass.startsWith("3x3");
