// Lines over time, drawn as SVG: a scale, the time below, a cross-hair with values. Arrow keys move the
// cross-hair, and a sentence says the essentials to who cannot see it.
import { useState } from 'preact/hooks';
import { clock, dateTime } from '../lib/format';
import { maxOf, niceScale, paths, summarize, type Values } from '../lib/series';

export interface ChartSeries {
  name: string;
  values: Values;
  /** 1 to 4: the theme's colours of charts. */
  color: number;
}

interface ChartProps {
  title: string;
  series: ChartSeries[];
  /** Milliseconds of the first value, and between two. */
  from: number;
  step: number;
  format(value: number): string;
  /** Scale ends: what 100 % is; without it the largest value. */
  max?: number;
  binary?: boolean;
  height?: number;
}

const WIDTH = 600;

export function Chart(props: ChartProps) {
  const { title, series, from, step, format, height = 132 } = props;
  const [at, setAt] = useState<number | null>(null);
  const count = Math.max(0, ...series.map((s) => s.values.length));
  const peak = maxOf(series.map((s) => s.values));
  const scale = niceScale(Math.max(props.max ?? 0, peak), props.binary);
  const frame = { width: WIDTH, height, count, top: scale.top };
  const long = count * step > 26 * 3600 * 1000;
  const timeAt = (i: number): string => {
    const ms = from + i * step;
    return long ? dateTime(new Date(ms).toISOString()).slice(5, 16) : clock(ms);
  };
  const shownAt = at ?? count - 1;
  const empty = series.every((s) => s.values.every((v) => v === null));

  const point = (e: PointerEvent): void => {
    const box = (e.currentTarget as HTMLElement).getBoundingClientRect();
    const share = Math.min(1, Math.max(0, (e.clientX - box.left) / box.width));
    setAt(Math.round(share * (count - 1)));
  };
  const onKeyDown = (e: KeyboardEvent): void => {
    const moves: Record<string, number> = {
      ArrowLeft: -1,
      ArrowRight: 1,
      PageUp: -12,
      PageDown: 12,
    };
    const by = moves[e.key];
    if (by === undefined) return;
    e.preventDefault();
    setAt(Math.min(count - 1, Math.max(0, shownAt + by)));
  };

  const said = series.map((s) => {
    const { last, mean, max } = summarize(s.values);
    return last === null
      ? `${s.name}: nothing known`
      : `${s.name}: now ${format(last)}, mean ${format(mean!)}, highest ${format(max!)}`;
  });

  return (
    <figure class="chart">
      <figcaption>
        <span class="chart-title">{title}</span>
        <span class="legend">
          {series.map((s) => {
            const value = s.values[shownAt];
            return (
              <span key={s.name}>
                <i class={`swatch c${s.color}`} aria-hidden="true" />
                {series.length > 1 && <span>{s.name}</span>}
                <b>{value == null ? '–' : format(value)}</b>
              </span>
            );
          })}
        </span>
      </figcaption>
      <div class="plot-row">
        <div
          class="plot"
          role="img"
          aria-label={`${title}. ${said.join('. ')}.`}
          tabIndex={0}
          onPointerMove={point}
          onPointerLeave={() => setAt(null)}
          onKeyDown={onKeyDown}
          onBlur={() => setAt(null)}
          style={{ height: `${height}px` }}
        >
          <svg viewBox={`0 0 ${WIDTH} ${height}`} preserveAspectRatio="none" aria-hidden="true">
            {scale.ticks.map((tick) => {
              const y = height - (tick / scale.top) * height;
              return <line key={tick} class="gridline" x1={0} x2={WIDTH} y1={y} y2={y} />;
            })}
            {series.map((s) => {
              const { line, area } = paths(s.values, frame);
              return (
                <g key={s.name} class={`c${s.color}`}>
                  <path class="area" d={area} />
                  <path class="line" d={line} />
                </g>
              );
            })}
            {at !== null && count > 1 && (
              <line
                class="crosshair"
                x1={(at / (count - 1)) * WIDTH}
                x2={(at / (count - 1)) * WIDTH}
                y1={0}
                y2={height}
              />
            )}
          </svg>
          {empty && <span class="chart-empty">No values yet</span>}
        </div>
        <div class="scale" aria-hidden="true">
          {scale.ticks.map((tick) => (
            <span key={tick} style={{ bottom: `${(tick / scale.top) * 100}%` }}>
              {tick === 0 ? '0' : format(tick)}
            </span>
          ))}
        </div>
      </div>
      <div class="times" aria-hidden="true">
        <span>{count ? timeAt(0) : ''}</span>
        {at !== null && <b>{timeAt(at)}</b>}
        <span>{count ? timeAt(count - 1) : ''}</span>
      </div>
    </figure>
  );
}
