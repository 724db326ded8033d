// What the host does now and has done: progress, how it ended, cancel.
import { ChevronDown, ChevronUp, CircleStop, ListChecks } from '../ui/icons';
import type { Task } from '../api/types';
import { ago, capitalize, count, duration, type Tone } from '../lib/format';
import { link } from '../lib/router';
import { cancelTask } from '../state/actions';
import { taskPanelOpen } from '../state/preferences';
import { machines, runningTasks, splitObject, tasks } from '../state/store';
import { Status } from '../ui/bits';
import { Button } from '../ui/Button';
import { DataTable, type Column } from '../ui/DataTable';

const TONES: Record<Task['state'], Tone> = {
  queued: 'idle',
  running: 'info',
  succeeded: 'ok',
  failed: 'bad',
  cancelled: 'warn',
};

export const taskName = (task: Task): string =>
  capitalize(task.type.replace(/[._-]/g, ' ').replace(/^machine /, ''));

export function TaskProgress({ task }: { task: Task }) {
  if (task.state !== 'running')
    return <Status tone={TONES[task.state]} text={capitalize(task.state)} />;
  return (
    <span class="task-progress">
      <span
        class="progress"
        role="progressbar"
        aria-label={taskName(task)}
        aria-valuemin={0}
        aria-valuemax={100}
        aria-valuenow={Math.round(task.progress)}
      >
        <span style={{ width: `${task.progress}%` }} />
      </span>
      <span class="number">{Math.round(task.progress)} %</span>
    </span>
  );
}

function TaskObject({ task }: { task: Task }) {
  const [kind, id] = splitObject(task.object);
  const name = task.object_name ?? id;
  const known = (kind === 'machine' || !kind) && machines.value.has(id);
  return known ? <a href={link('machines', id)}>{name}</a> : <>{name || '–'}</>;
}

const lasted = (task: Task): number | null =>
  task.started && task.ended ? (Date.parse(task.ended) - Date.parse(task.started)) / 1000 : null;

const COLUMNS: Column<Task>[] = [
  {
    key: 'type',
    title: 'Task',
    width: 'minmax(130px, 1.2fr)',
    cell: (t) => taskName(t),
    sort: taskName,
  },
  {
    key: 'object',
    title: 'On',
    width: 'minmax(100px, 1.2fr)',
    cell: (t) => <TaskObject task={t} />,
  },
  {
    key: 'state',
    title: 'State',
    width: 'minmax(120px, 1fr)',
    cell: (t) => <TaskProgress task={t} />,
  },
  {
    key: 'step',
    title: 'Details',
    width: 'minmax(120px, 2fr)',
    from: 'tablet',
    cell: (t) => (
      <span class={t.error ? 'bad-text' : 'muted'} title={t.error?.detail ?? t.step ?? ''}>
        {t.error?.detail ?? t.step ?? ''}
      </span>
    ),
  },
  { key: 'user', title: 'By', width: '110px', from: 'desktop', cell: (t) => t.user },
  {
    key: 'created',
    title: 'Started',
    width: '110px',
    from: 'tablet',
    cell: (t) => ago(t.created),
    sort: (t) => t.created,
  },
  {
    key: 'lasted',
    title: 'Took',
    width: '90px',
    from: 'desktop',
    cell: (t) => duration(lasted(t)),
  },
];

export function TaskPanel() {
  const open = taskPanelOpen.value;
  const running = runningTasks.value;
  const first = running[0];
  const list = [...tasks.value.values()].sort((a, b) => b.created.localeCompare(a.created));
  return (
    <section class={`task-panel${open ? ' open' : ''}`} aria-label="Tasks">
      <button
        type="button"
        class="task-bar"
        aria-expanded={open}
        onClick={() => (taskPanelOpen.value = !open)}
      >
        <ListChecks size={15} aria-hidden="true" />
        <b>Tasks</b>
        {first ? (
          <>
            <span class="muted">
              {count(running.length, 'task')} running: {taskName(first)} {first.object_name}
            </span>
            <span class="task-bar-progress" aria-hidden="true">
              <span class="progress">
                <span style={{ width: `${first.progress}%` }} />
              </span>
            </span>
          </>
        ) : (
          <span class="muted">{list.length ? 'None running' : 'None yet'}</span>
        )}
        {open ? (
          <ChevronDown size={15} aria-hidden="true" />
        ) : (
          <ChevronUp size={15} aria-hidden="true" />
        )}
      </button>
      {open && (
        <DataTable
          label="Tasks"
          columns={COLUMNS}
          items={list}
          keyOf={(t) => t.id}
          rowHeight={34}
          fill
          empty="Nothing has been asked of this host yet."
          actions={(t) =>
            (t.state === 'running' || t.state === 'queued') && t.cancellable ? (
              <Button
                small
                variant="ghost"
                icon={CircleStop}
                label={`Cancel ${taskName(t)}`}
                onClick={() => void cancelTask(t)}
              />
            ) : null
          }
        />
      )}
    </section>
  );
}
