// Files from this computer to the host: what they are, then the upload, then the import as a task.
import { useRef, useState } from 'preact/hooks';
import { FileUp } from '../../ui/icons';
import { droppedFiles } from '../../app/ui-state';
import { bytes } from '../../lib/format';
import { has, machineList } from '../../state/store';
import { startImport } from '../../state/transfers';
import { Button } from '../../ui/Button';
import { Dialog } from '../../ui/Dialog';
import { CheckField, SelectField, TextField } from '../../ui/Field';
import { nameProblem } from '../create/draft';
import { guessKind, guessName, KINDS, type ImportKind } from './kinds';
import { TransferList } from './TransferList';

interface Choice {
  kind: ImportKind;
  name: string;
  machine: string;
  licences: boolean;
}

const firstChoice = (file: File | undefined): Choice => ({
  kind: file ? guessKind(file.name) : 'appliance',
  name: file ? guessName(file.name) : '',
  machine: '',
  licences: false,
});

function DropZone({ onFiles }: { onFiles(files: File[]): void }) {
  const input = useRef<HTMLInputElement>(null);
  const [over, setOver] = useState(false);
  return (
    <div
      class={`drop-zone${over ? ' over' : ''}`}
      onDragOver={(e) => (e.preventDefault(), setOver(true))}
      onDragLeave={() => setOver(false)}
      onDrop={(e) => {
        e.preventDefault();
        e.stopPropagation();
        setOver(false);
        onFiles([...(e.dataTransfer?.files ?? [])]);
      }}
    >
      <FileUp size={28} aria-hidden="true" />
      <b>Drop a file here</b>
      <span class="muted">OVA, ISO, QCOW2, VMDK, VHDX, VHD, VDI, raw</span>
      <input
        ref={input}
        type="file"
        class="only-read"
        aria-label="File to import"
        tabIndex={-1}
        onChange={(e) => onFiles([...(e.currentTarget.files ?? [])])}
      />
      <Button onClick={() => input.current?.click()}>Choose a file</Button>
    </div>
  );
}

export function ImportWizard({ onClose }: { onClose(): void }) {
  const [files, setFiles] = useState<File[]>(droppedFiles.value);
  const [choice, setChoice] = useState<Choice>(firstChoice(files[0]));
  const file = files[0];
  const set = (part: Partial<Choice>): void => setChoice({ ...choice, ...part });
  const take = (list: File[]): void => {
    setFiles(list);
    setChoice(firstChoice(list[0]));
  };
  const ready =
    !!file &&
    choice.name !== '' &&
    !nameProblem(choice.name) &&
    (choice.kind !== 'disk' || choice.machine !== '');
  const submit = (): void => {
    if (!ready) return;
    startImport(file, {
      kind: choice.kind,
      name: choice.name,
      ...(choice.kind === 'disk' ? { machine: choice.machine } : {}),
      ...(choice.kind === 'appliance' && choice.licences ? { accept_licences: true } : {}),
    });
    take(files.slice(1));
  };
  return (
    <Dialog
      title="Import"
      onClose={onClose}
      onSubmit={submit}
      footer={
        <>
          <Button onClick={onClose}>{file ? 'Cancel' : 'Close'}</Button>
          {file && (
            <Button type="submit" variant="primary" disabled={!ready}>
              Upload and import
            </Button>
          )}
        </>
      }
    >
      <div class="stack">
        {!file && <DropZone onFiles={take} />}
        {file && (
          <>
            <p class="file-line">
              <b>{file.name}</b> <span class="muted">{bytes(file.size)}</span>
              {files.length > 1 && <span class="muted">, {files.length - 1} more after it</span>}
            </p>
            <div class="choices" role="radiogroup" aria-label="What it is">
              {KINDS.filter((k) => k.value !== 'disk' || has('disk-import')).map((k) => (
                <button
                  key={k.value}
                  type="button"
                  class="choice"
                  role="radio"
                  aria-checked={choice.kind === k.value}
                  onClick={() => set({ kind: k.value })}
                >
                  <b>{k.label}</b>
                  <span>{k.hint}</span>
                </button>
              ))}
            </div>
            <TextField
              label={choice.kind === 'appliance' ? 'Name of the machine' : 'Name'}
              value={choice.name}
              onInput={(name) => set({ name })}
              error={nameProblem(choice.name)}
              autoFocus
            />
            {choice.kind === 'disk' && (
              <SelectField
                label="For machine"
                value={choice.machine}
                onInput={(machine) => set({ machine })}
                options={[
                  { value: '', label: 'Choose one' },
                  ...machineList.value.map((m) => ({ value: m.id, label: m.name })),
                ]}
              />
            )}
            {choice.kind === 'appliance' && (
              <CheckField
                label="Accept the appliance's licences"
                hint="Needed where it comes with some; they are kept with the machine."
                checked={choice.licences}
                onInput={(licences) => set({ licences })}
              />
            )}
          </>
        )}
        <TransferList />
      </div>
    </Dialog>
  );
}
