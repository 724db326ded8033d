import { useState } from 'preact/hooks';
import { get } from '../../api/client';
import type { Stats, StatsRange } from '../../api/types';
import { capitalize } from '../../lib/format';
import { Banner } from '../../ui/bits';
import { StatsCharts } from '../StatsCharts';
import { useLoaded } from '../use-loaded';
import type { TabProps } from './MachinePage';

const RANGES: StatsRange[] = ['hour', 'day', 'month', 'year'];

export function RangePicker({
  range,
  onPick,
}: {
  range: StatsRange;
  onPick(range: StatsRange): void;
}) {
  return (
    <div class="segments" role="group" aria-label="Range">
      {RANGES.map((r) => (
        <button key={r} type="button" aria-pressed={range === r} onClick={() => onPick(r)}>
          {capitalize(r)}
        </button>
      ))}
    </div>
  );
}

export function MonitorTab({ machine }: TabProps) {
  const [range, setRange] = useState<StatsRange>('hour');
  const stats = useLoaded(
    () => get<Stats>(`/machines/${machine.id}/stats`, { range }),
    [machine.id, range],
    20_000,
  );
  return (
    <>
      <div class="filters">
        <RangePicker range={range} onPick={setRange} />
        <span class="muted">The arrow keys read single values.</span>
      </div>
      {stats.problem && <Banner tone="bad">{stats.problem}</Banner>}
      <StatsCharts stats={stats.value} cpus={machine.cpus} memory={machine.memory} height={190} />
    </>
  );
}
