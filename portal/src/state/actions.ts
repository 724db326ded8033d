// What a user can do to machines, one or many: which of them it applies to, what is asked first, what
// is shown before the server has answered.
import { patch, post, remove } from '../api/client';
import type { MachineState, MachineSummary, Task } from '../api/types';
import { count } from '../lib/format';
import { ask, notify, notifyProblem } from './notices';
import { assume, putTask } from './store';

export type Power = 'start' | 'stop' | 'force-stop' | 'restart' | 'pause' | 'resume' | 'reset';

interface PowerAction {
  label: string;
  past: string;
  from: MachineState[];
  to: MachineState;
  path: string;
  body?: object;
  danger?: boolean;
  /** What happens to a machine, for the question; without it nothing is asked. */
  says?: string;
  shortcut?: string;
}

export const POWER: Record<Power, PowerAction> = {
  start: {
    label: 'Start',
    past: 'starting',
    from: ['stopped', 'crashed'],
    to: 'starting',
    path: 'start',
  },
  stop: {
    label: 'Shut down',
    past: 'shutting down',
    from: ['running'],
    to: 'stopping',
    path: 'stop',
    body: { force: false, timeout: 60 },
    says: 'The guest is asked to shut down. One that has not ended after 60 seconds is powered off.',
  },
  'force-stop': {
    label: 'Power off',
    past: 'powering off',
    from: ['running', 'paused', 'stopping', 'starting'],
    to: 'stopping',
    path: 'stop',
    body: { force: true },
    danger: true,
    says: 'The power is cut at once. What the guest has not written to its disks is lost.',
  },
  restart: {
    label: 'Restart',
    past: 'restarting',
    from: ['running'],
    to: 'stopping',
    path: 'restart',
    body: { force: false, timeout: 60 },
    says: 'The guest is asked to shut down and is then started again. Pending changes take effect.',
  },
  pause: { label: 'Pause', past: 'pausing', from: ['running'], to: 'paused', path: 'pause' },
  resume: { label: 'Resume', past: 'resuming', from: ['paused'], to: 'running', path: 'resume' },
  reset: {
    label: 'Reset',
    past: 'resetting',
    from: ['running', 'paused'],
    to: 'running',
    path: 'reset',
    danger: true,
    says: 'As with a reset button: the guest starts again at once, unwritten data is lost.',
  },
};

export const applies = (power: Power, machine: MachineSummary): boolean =>
  POWER[power].from.includes(machine.state);

/** Which of these it applies to, and how many are left out. */
export function divide(power: Power, all: MachineSummary[]): [MachineSummary[], number] {
  const fit = all.filter((m) => applies(power, m));
  return [fit, all.length - fit.length];
}

const leftOut = (n: number): string[] =>
  n ? [`${count(n, 'other machine')} of the selection ${n === 1 ? 'is' : 'are'} left alone.`] : [];

async function confirmPower(
  power: Power,
  fit: MachineSummary[],
  skipped: number,
): Promise<boolean> {
  const action = POWER[power];
  if (!action.says && fit.length < 2) return true;
  if (!action.says && fit.length < 10 && !skipped) return true;
  const answer = await ask({
    title: `${action.label} ${fit.length === 1 ? fit[0]!.name : count(fit.length, 'machine')}?`,
    body: [action.says ?? `All of them are ${action.past}.`, ...leftOut(skipped)],
    items: fit.length > 1 ? fit.map((m) => m.name) : undefined,
    action: action.label,
    danger: action.danger,
  });
  return answer !== null;
}

/** A few requests at a time: the server's rate limit is for all of this user's windows. */
async function inTurn<T>(items: T[], work: (item: T) => Promise<void>, width = 6): Promise<void> {
  const rest = [...items];
  const lane = async (): Promise<void> => {
    for (let item = rest.shift(); item !== undefined; item = rest.shift()) await work(item);
  };
  await Promise.all(Array.from({ length: Math.min(width, items.length) }, lane));
}

export async function power(what: Power, all: MachineSummary[]): Promise<void> {
  const [fit, skipped] = divide(what, all);
  if (!fit.length || !(await confirmPower(what, fit, skipped))) return;
  const action = POWER[what];
  let failed = 0;
  await inTurn(fit, async (machine) => {
    const takeBack = assume(machine.id, { state: action.to });
    try {
      const task = await post<Task | undefined>(
        `/machines/${machine.id}/${action.path}`,
        action.body ?? {},
      );
      if (task?.id) putTask(task);
    } catch (error) {
      takeBack();
      if (++failed <= 3) notifyProblem(`${machine.name} was not changed`, error);
    }
  });
  if (fit.length > 1 && failed < fit.length)
    notify(`${count(fit.length - failed, 'machine')}: ${action.past}`, 'ok');
}

export async function deleteMachines(all: MachineSummary[]): Promise<boolean> {
  const busy = all.filter((m) => !['stopped', 'crashed'].includes(m.state));
  const one = all.length === 1 ? all[0]! : null;
  if (busy.length === all.length) {
    notify(
      one ? `${one.name} is ${one.state}: stop it first.` : 'All of these run: stop them first.',
      'warn',
    );
    return false;
  }
  const fit = all.filter((m) => !busy.includes(m));
  const answer = await ask({
    title: `Delete ${one ? one.name : count(fit.length, 'machine')}?`,
    body: [
      'The description, its history and its permissions are removed. There is no way back.',
      ...(busy.length
        ? [
            `${count(busy.length, 'machine')} still on ${busy.length === 1 ? 'is' : 'are'} left alone.`,
          ]
        : []),
    ],
    items: fit.length > 1 ? fit.map((m) => m.name) : undefined,
    choices: [
      {
        value: 'delete',
        label: 'Delete its disks too',
        hint: 'Frees their space in the datastore.',
      },
      {
        value: 'keep',
        label: 'Keep its disks',
        hint: 'They become images, to make other machines from.',
      },
    ],
    choice: 'delete',
    typed: fit.length > 3 ? String(fit.length) : undefined,
    action: one ? 'Delete machine' : `Delete ${count(fit.length, 'machine')}`,
    danger: true,
  });
  if (answer === null) return false;
  await inTurn(fit, async (machine) => {
    const takeBack = assume(machine.id, { state: 'deleting' });
    try {
      const task = await remove<Task | undefined>(`/machines/${machine.id}`, { disks: answer });
      if (task?.id) putTask(task);
    } catch (error) {
      takeBack();
      notifyProblem(`${machine.name} was not deleted`, error);
    }
  });
  return true;
}

/** Change plain members (name, tags, folder, ...) of machines, shown at once. */
export async function change(
  all: MachineSummary[],
  changeOf: (machine: MachineSummary) => Partial<MachineSummary>,
): Promise<void> {
  await inTurn(all, async (machine) => {
    const part = changeOf(machine);
    const takeBack = assume(machine.id, part);
    try {
      await patch(`/machines/${machine.id}`, part);
    } catch (error) {
      takeBack();
      notifyProblem(`${machine.name} was not changed`, error);
    }
  });
}

interface Removal {
  title: string;
  body: string[];
  action?: string;
  path: string;
  query?: Record<string, string>;
  /** What is said where it was refused. */
  failed: string;
  /** What shows that it is gone. */
  then?(): unknown;
}

/** Ask, delete one object of the server, and show that it is gone. @returns whether it is */
export async function removeAsked(what: Removal): Promise<boolean> {
  const { title, body, action = 'Delete' } = what;
  if ((await ask({ title, body, action, danger: true })) === null) return false;
  try {
    const task = await remove<Task | undefined>(what.path, what.query);
    if (task?.id) putTask(task);
    await what.then?.();
    return true;
  } catch (error) {
    notifyProblem(what.failed, error);
    return false;
  }
}

export async function cancelTask(task: Task): Promise<void> {
  try {
    await post(`/tasks/${task.id}/cancel`);
  } catch (error) {
    notifyProblem('The task goes on', error);
  }
}
