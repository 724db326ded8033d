import { useState } from 'preact/hooks';
import { Plus, RotateCcw, Trash2 } from '../../ui/icons';
import { get, post, remove } from '../../api/client';
import type { Page as ListPage, Snapshot, Task } from '../../api/types';
import { bytes, dateTime } from '../../lib/format';
import { ask, notifyProblem } from '../../state/notices';
import { mayChange, putTask, revisions } from '../../state/store';
import { Banner } from '../../ui/bits';
import { Button } from '../../ui/Button';
import { useLoaded } from '../use-loaded';

interface DiskSnapshotsProps {
  machine: string;
  disk: string;
  stopped: boolean;
}

export function DiskSnapshots({ machine, disk, stopped }: DiskSnapshotsProps) {
  const path = `/machines/${machine}/disks/${encodeURIComponent(disk)}/snapshots`;
  const list = useLoaded(() => get<ListPage<Snapshot>>(path), [path, revisions.value.get(machine)]);
  const [name, setName] = useState('');
  const why = 'Stop the machine first';

  const run = async (
    what: string,
    work: () => Promise<Task | Snapshot | undefined>,
  ): Promise<void> => {
    try {
      const answer = await work();
      if (answer && 'type' in answer) putTask(answer);
      list.reload();
    } catch (error) {
      notifyProblem(what, error);
    }
  };
  const apply = async (snapshot: Snapshot): Promise<void> => {
    const answer = await ask({
      title: `Go back to ${snapshot.name}?`,
      body: [
        `${disk} becomes as it was on ${dateTime(snapshot.created)}.`,
        'What was written since then is lost, unless another snapshot holds it.',
      ],
      action: 'Go back',
      danger: true,
    });
    if (answer !== null)
      void run('The disk was not changed', () =>
        post(`${path}/${encodeURIComponent(snapshot.name)}/apply`),
      );
  };
  const drop = async (snapshot: Snapshot): Promise<void> => {
    const answer = await ask({
      title: `Delete the snapshot ${snapshot.name}?`,
      body: ['The disk stays as it is now.'],
      action: 'Delete snapshot',
      danger: true,
    });
    if (answer !== null)
      void run('The snapshot was not deleted', () =>
        remove(`${path}/${encodeURIComponent(snapshot.name)}`),
      );
  };

  const items = list.value?.items ?? [];
  return (
    <div class="snapshots">
      {list.problem && <Banner tone="bad">{list.problem}</Banner>}
      {!stopped && (
        <p class="muted">Snapshots of a disk are taken and applied while the machine is off.</p>
      )}
      <ul>
        {items.map((s) => (
          <li key={s.name}>
            <b>{s.name}</b>
            <span class="muted">{dateTime(s.created)}</span>
            <span class="muted">{bytes(s.size)}</span>
            {mayChange.value && (
              <span class="actions">
                <Button
                  small
                  icon={RotateCcw}
                  disabled={!stopped}
                  why={why}
                  onClick={() => void apply(s)}
                >
                  Go back
                </Button>
                <Button
                  small
                  icon={Trash2}
                  label={`Delete ${s.name}`}
                  disabled={!stopped}
                  why={why}
                  onClick={() => void drop(s)}
                />
              </span>
            )}
          </li>
        ))}
        {list.value && !items.length && <li class="muted">No snapshots.</li>}
      </ul>
      {mayChange.value && stopped && (
        <form
          class="inline-form"
          onSubmit={(e) => {
            e.preventDefault();
            void run('No snapshot was taken', () => post(path, { name })).then(() => setName(''));
          }}
        >
          <input
            type="text"
            aria-label="Name of the new snapshot"
            placeholder="Name, like before-upgrade"
            value={name}
            onInput={(e) => setName(e.currentTarget.value)}
          />
          <Button type="submit" icon={Plus} disabled={!name.trim()}>
            Take snapshot
          </Button>
        </form>
      )}
    </div>
  );
}
