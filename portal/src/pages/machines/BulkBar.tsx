// What can be done to the chosen machines together.
import { useState } from 'preact/hooks';
import { FolderInput, Tags, Trash2, X } from '../../ui/icons';
import type { MachineSummary } from '../../api/types';
import { count } from '../../lib/format';
import { allFolders, allTags } from '../../lib/tree';
import { change, deleteMachines, divide, power, POWER, type Power } from '../../state/actions';
import { machineList } from '../../state/store';
import { Button } from '../../ui/Button';
import { Dialog } from '../../ui/Dialog';
import { TextField } from '../../ui/Field';
import { POWER_ICONS } from './MachineMenu';

const OFFERED: Power[] = ['start', 'stop', 'restart', 'pause', 'resume', 'force-stop'];

const cleanFolder = (text: string): string =>
  `/${text
    .split('/')
    .map((part) => part.trim())
    .filter(Boolean)
    .join('/')}`;

interface AssignProps {
  what: 'tag' | 'folder';
  machines: MachineSummary[];
  onClose(): void;
}

function AssignDialog({ what, machines, onClose }: AssignProps) {
  const [text, setText] = useState('');
  const names = count(machines.length, 'machine');
  const submit = (): void => {
    if (!text.trim()) return;
    onClose();
    if (what === 'folder') void change(machines, () => ({ folder: cleanFolder(text) }));
    else void change(machines, (m) => ({ tags: [...new Set([...m.tags, text.trim()])] }));
  };
  return (
    <Dialog
      title={what === 'folder' ? `Move ${names}` : `Tag ${names}`}
      size="small"
      onClose={onClose}
      onSubmit={submit}
      footer={
        <>
          <Button onClick={onClose}>Cancel</Button>
          <Button type="submit" variant="primary" disabled={!text.trim()}>
            {what === 'folder' ? 'Move' : 'Add tag'}
          </Button>
        </>
      }
    >
      <TextField
        label={what === 'folder' ? 'To folder' : 'Tag'}
        hint={what === 'folder' ? 'Like /prod/web; one that is not there yet appears.' : undefined}
        value={text}
        onInput={setText}
        autoFocus
        list={
          what === 'folder'
            ? allFolders(machineList.value)
            : allTags(machineList.value).map(([tag]) => tag)
        }
      />
    </Dialog>
  );
}

export function BulkBar({ machines, onClear }: { machines: MachineSummary[]; onClear(): void }) {
  const [assigning, setAssigning] = useState<'tag' | 'folder' | null>(null);
  return (
    <div class="bulk" role="toolbar" aria-label="Chosen machines">
      <b>{machines.length} selected</b>
      {OFFERED.map((what) => {
        const [fit] = divide(what, machines);
        if (!fit.length) return null;
        return (
          <Button
            key={what}
            small
            icon={POWER_ICONS[what]}
            onClick={() => void power(what, machines)}
          >
            {POWER[what].label}
            {fit.length < machines.length && ` (${fit.length})`}
          </Button>
        );
      })}
      <Button small icon={Tags} onClick={() => setAssigning('tag')}>
        Tag
      </Button>
      <Button small icon={FolderInput} onClick={() => setAssigning('folder')}>
        Move
      </Button>
      <Button
        small
        icon={Trash2}
        onClick={() => void deleteMachines(machines).then((done) => done && onClear())}
      >
        Delete
      </Button>
      <Button small variant="ghost" icon={X} label="Clear the selection" onClick={onClear} />
      {assigning && (
        <AssignDialog what={assigning} machines={machines} onClose={() => setAssigning(null)} />
      )}
    </div>
  );
}
