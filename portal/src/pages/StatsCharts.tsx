// The four graphs of a host or a machine: CPU, memory, disk, network.
import type { Stats } from '../api/types';
import { bytes, percent, rate } from '../lib/format';
import { Chart } from '../ui/Chart';

interface StatsChartsProps {
  stats: Stats | undefined;
  /** How many: the graph shows the share of all of them. */
  cpus: number;
  memory: number;
  height?: number;
}

export function StatsCharts({ stats, cpus, memory, height }: StatsChartsProps) {
  const series = stats?.series;
  const common = {
    from: stats ? Date.parse(stats.from) : 0,
    step: (stats?.step ?? 20) * 1000,
    height,
  };
  return (
    <div class="charts">
      <div class="panel chart-panel">
        <Chart
          {...common}
          title="CPU"
          max={100}
          format={(v) => percent(v)}
          series={[
            {
              name: 'CPU',
              values: (series?.cpu ?? []).map((v) => (v === null ? null : v / cpus)),
              color: 1,
            },
          ]}
        />
      </div>
      <div class="panel chart-panel">
        <Chart
          {...common}
          title="Memory"
          max={memory}
          binary
          format={bytes}
          series={[{ name: 'Memory', values: series?.memory ?? [], color: 2 }]}
        />
      </div>
      <div class="panel chart-panel">
        <Chart
          {...common}
          title="Disk"
          binary
          format={rate}
          series={[
            { name: 'Read', values: series?.disk_read ?? [], color: 3 },
            { name: 'Write', values: series?.disk_write ?? [], color: 4 },
          ]}
        />
      </div>
      <div class="panel chart-panel">
        <Chart
          {...common}
          title="Network"
          binary
          format={rate}
          series={[
            { name: 'In', values: series?.net_rx ?? [], color: 1 },
            { name: 'Out', values: series?.net_tx ?? [], color: 4 },
          ]}
        />
      </div>
    </div>
  );
}
