// One machine: its head with what can be done, and a tab for each side of it.
import { useState } from 'preact/hooks';
import { MonitorX, Trash2 } from '../../ui/icons';
import { get } from '../../api/client';
import { Problem } from '../../api/problem';
import type { Machine } from '../../api/types';
import { osName } from '../../lib/format';
import { link } from '../../lib/router';
import { changes } from '../../lib/patch';
import { applies, deleteMachines, power, POWER, type Power } from '../../state/actions';
import { machines, mayChange, revisions, runningTasks, splitObject } from '../../state/store';
import { Banner, Empty, Page, State, Tabs, Tag } from '../../ui/bits';
import { Button } from '../../ui/Button';
import { Menu } from '../../ui/Menu';
import { TaskProgress, taskName } from '../../app/TaskPanel';
import { POWER_ICONS } from '../machines/MachineMenu';
import { TemplateDialog, templateItem } from '../Templates';
import { useLoaded } from '../use-loaded';
import { ConsoleTab } from './ConsoleTab';
import { DisksTab } from './DisksTab';
import { EventsTab } from './EventsTab';
import { exportItems } from './export';
import { HardwareTab } from './HardwareTab';
import { MonitorTab } from './MonitorTab';
import { NetworksTab } from './NetworksTab';
import { PermissionsTab } from './PermissionsTab';
import { ResourcesTab } from './ResourcesTab';
import { SummaryTab } from './SummaryTab';

export interface TabProps {
  machine: Machine;
  reload(): void;
}

const TABS = [
  { name: '', text: 'Summary', view: SummaryTab },
  { name: 'console', text: 'Console', view: ConsoleTab },
  { name: 'hardware', text: 'Hardware', view: HardwareTab },
  { name: 'disks', text: 'Disks', view: DisksTab },
  { name: 'networks', text: 'Networks', view: NetworksTab },
  { name: 'resources', text: 'Resources', view: ResourcesTab },
  { name: 'monitor', text: 'Monitor', view: MonitorTab },
  { name: 'events', text: 'Events', view: EventsTab },
  { name: 'permissions', text: 'Permissions', view: PermissionsTab },
];

function PowerButtons({ machine }: { machine: Machine }) {
  const [templating, setTemplating] = useState(false);
  const primary: Power[] = ['start', 'resume', 'stop', 'restart'];
  const shown = primary.filter((what) => applies(what, machine));
  const more = (Object.keys(POWER) as Power[]).filter(
    (what) => applies(what, machine) && !primary.includes(what),
  );
  const canDelete = ['stopped', 'crashed'].includes(machine.state);
  return (
    <>
      {shown.map((what, i) => (
        <Button
          key={what}
          icon={POWER_ICONS[what]}
          variant={i === 0 && what !== 'stop' ? 'primary' : undefined}
          onClick={() => void power(what, [machine])}
        >
          {POWER[what].label}
        </Button>
      ))}
      <Menu
        label="More actions"
        text="More"
        items={[
          ...more.map((what) => ({
            label: POWER[what].label,
            icon: POWER_ICONS[what],
            danger: POWER[what].danger,
            run: () => void power(what, [machine]),
          })),
          ...exportItems(machine),
          templateItem(machine, () => setTemplating(true)),
          {
            label: canDelete ? 'Delete' : 'Delete (stop it first)',
            icon: Trash2,
            danger: true,
            apart: true,
            disabled: !canDelete,
            run: () => void deleteMachines([machine]),
          },
        ]}
      />
      {templating && <TemplateDialog machine={machine} onClose={() => setTemplating(false)} />}
    </>
  );
}

function CurrentTask({ id }: { id: string }) {
  const task = runningTasks.value.find((t) => splitObject(t.object)[1] === id);
  if (!task) return null;
  return (
    <Banner tone="info">
      <span>
        {taskName(task)}
        {task.step ? `: ${task.step}` : ''}
      </span>
      <TaskProgress task={task} />
    </Banner>
  );
}

export function MachinePage({ id, tab }: { id: string; tab: string }) {
  const revision = revisions.value.get(id) ?? 0;
  const detail = useLoaded(() => get<Machine>(`/machines/${id}`), [id, revision]);
  const summary = machines.value.get(id);

  if (!detail.value) {
    const gone = detail.error instanceof Problem && detail.error.status === 404;
    return (
      <Page title={summary?.name ?? 'Machine'}>
        {gone ? (
          <Empty icon={MonitorX} title="There is no such machine">
            <a href="#/machines">All machines</a>
          </Empty>
        ) : (
          detail.problem && <Banner tone="bad">{detail.problem}</Banner>
        )}
      </Page>
    );
  }
  // The summary is newer: it follows every event.
  const machine: Machine = { ...detail.value, ...summary };
  const gone = detail.error instanceof Problem && detail.error.status === 404;
  const pending = machine.pending_config
    ? changes(machine.config, machine.pending_config).length
    : 0;
  const current = TABS.find((t) => t.name === tab) ?? TABS[0]!;
  const View = current.view;
  return (
    <Page
      title={machine.name}
      fill={current.name === 'console'}
      lead={
        <span class="machine-lead">
          <State state={machine.state} />
          {machine.os && <span>{osName(machine.os)}</span>}
          {machine.folder !== '/' && (
            <a href={`#/machines?q=${encodeURIComponent(`folder:${machine.folder}`)}`}>
              {machine.folder}
            </a>
          )}
          <span>
            {machine.tags.map((t) => (
              <Tag key={t} name={t} href={`#/machines?q=${encodeURIComponent(`tag:${t}`)}`} />
            ))}
          </span>
        </span>
      }
      actions={mayChange.value && !gone && <PowerButtons machine={machine} />}
    >
      {gone && <Banner tone="warn">This machine has been deleted.</Banner>}
      {machine.state_reason && (
        <Banner tone={machine.state === 'crashed' ? 'bad' : 'info'}>{machine.state_reason}</Banner>
      )}
      <CurrentTask id={id} />
      <Tabs
        label="Machine"
        current={current.name ? link('machines', id, current.name) : link('machines', id)}
        items={TABS.map((t) => ({
          href: t.name ? link('machines', id, t.name) : link('machines', id),
          text: t.text,
          badge: t.name === 'hardware' ? pending : 0,
        }))}
      />
      <View machine={machine} reload={detail.reload} />
    </Page>
  );
}
