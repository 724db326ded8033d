// From numbers over time to what a chart draws: scale, ticks, path pieces. No DOM.

export type Values = (number | null)[];

/** A round upper end and the ticks below it; bytes are cut at powers of two. */
export function niceScale(
  max: number,
  binary = false,
  wanted = 4,
): { top: number; ticks: number[] } {
  if (!(max > 0)) return { top: 1, ticks: [0, 1] };
  const base = binary
    ? 1024 ** Math.floor(Math.log(max) / Math.log(1024))
    : 10 ** Math.floor(Math.log10(max));
  const steps = binary
    ? [0.25, 0.5, 1, 2, 4, 5, 8, 10, 16, 20, 32, 50, 64, 100, 128, 200, 256, 512]
    : [0.1, 0.2, 0.25, 0.5, 1, 2, 2.5, 5];
  const step = (steps.find((s) => max / (s * base) <= wanted) ?? steps[steps.length - 1]!) * base;
  const top = Math.ceil(max / step - 1e-9) * step;
  const ticks: number[] = [];
  for (let value = 0; value <= top + step / 2; value += step) ticks.push(value);
  return { top, ticks };
}

export const maxOf = (lists: Values[]): number => {
  let max = 0;
  for (const list of lists)
    for (const value of list) if (value !== null && value > max) max = value;
  return max;
};

/** Values added up point by point; null only where all are. */
export function sum(lists: Values[]): Values {
  const length = Math.max(0, ...lists.map((l) => l.length));
  return Array.from({ length }, (_, i) => {
    let total: number | null = null;
    for (const list of lists) {
      const value = list[i];
      if (value != null) total = (total ?? 0) + value;
    }
    return total;
  });
}

/** Runs of known values as [first index, values]: a gap stays a gap. */
export function runs(values: Values): [number, number[]][] {
  const found: [number, number[]][] = [];
  let current: [number, number[]] | null = null;
  values.forEach((value, i) => {
    if (value === null || value === undefined) current = null;
    else if (current) current[1].push(value);
    else found.push((current = [i, [value]]));
  });
  return found;
}

export interface Frame {
  width: number;
  height: number;
  count: number;
  top: number;
}

const x = (i: number, f: Frame): number => (f.count < 2 ? 0 : (i / (f.count - 1)) * f.width);
const y = (v: number, f: Frame): number =>
  f.height - Math.min(1, Math.max(0, v / f.top)) * f.height;
const n = (value: number): string => value.toFixed(1).replace(/\.0$/, '');

/** SVG path data of the line, and of the area below it. */
export function paths(values: Values, frame: Frame): { line: string; area: string } {
  let line = '';
  let area = '';
  for (const [first, run] of runs(values)) {
    const points = run.map((v, i) => `${n(x(first + i, frame))} ${n(y(v, frame))}`);
    // A lone value between two gaps is drawn as a short dash.
    if (points.length === 1) points.push(`${n(x(first, frame) + 1.5)} ${n(y(run[0]!, frame))}`);
    line += `M${points.join('L')}`;
    const last = x(first + run.length - 1, frame);
    area += `M${n(x(first, frame))} ${n(frame.height)}L${points.join('L')}L${n(last)} ${n(frame.height)}Z`;
  }
  return { line, area };
}

/** What a chart says to who cannot see it. */
export function summarize(values: Values): {
  last: number | null;
  mean: number | null;
  max: number | null;
} {
  const known = values.filter((v): v is number => v != null);
  if (!known.length) return { last: null, mean: null, max: null };
  const last = values[values.length - 1] ?? known[known.length - 1]!;
  return { last, mean: known.reduce((a, b) => a + b, 0) / known.length, max: Math.max(...known) };
}
