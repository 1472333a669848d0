// SPDX-License-Identifier: Apache-2.0

/** How numbers of a panel are written: as many of `per` as there are, with `name` behind them. */
export interface Scale {
  readonly per: number;
  readonly name: string;
}

const THOUSANDS: readonly Scale[] = [
  { per: 1e6, name: " M" },
  { per: 1e3, name: " K" },
  { per: 1, name: "" },
];

const SCALES: Readonly<Record<string, readonly Scale[]>> = {
  short: THOUSANDS,
  s: [
    { per: 60, name: " min" },
    { per: 1, name: " s" },
    { per: 1e-3, name: " ms" },
    { per: 1e-6, name: " µs" },
  ],
  ops: [{ per: 1, name: " ops/s" }],
  reqps: [{ per: 1, name: " req/s" }],
  percentunit: [{ per: 0.01, name: "%" }],
  bytes: [
    { per: 2 ** 30, name: " GiB" },
    { per: 2 ** 20, name: " MiB" },
    { per: 2 ** 10, name: " KiB" },
    { per: 1, name: " B" },
  ],
};

/** The scale of Grafana's unit that suits numbers up to `most`. @throws Error for a unit that is not known here */
export function scaleFor(unit: string, most: number): Scale {
  const scales = SCALES[unit];
  if (scales === undefined) throw new Error(`unit ${unit} is not known`);
  const suited = most === 0 ? scales.find(({ per }) => per === 1) : scales.find(({ per }) => most >= per);
  const found = suited ?? scales.at(-1);
  if (found === undefined) throw new Error(`unit ${unit} has no scale`);
  return found;
}

/** Round numbers from 0 to at least `most`, about `count` of them. */
export function ticks(most: number, count: number): readonly number[] {
  const top = most > 0 ? most : 1;
  const rough = top / count;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 2.5, 5, 10].map((factor) => factor * power).find((each) => each >= rough) ?? rough;
  const steps = Math.ceil(top / step - 1e-9);
  return Array.from({ length: steps + 1 }, (_, index) => Number((index * step).toPrecision(6)));
}
