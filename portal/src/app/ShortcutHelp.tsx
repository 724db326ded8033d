import { Dialog } from '../ui/Dialog';
import { PLACES } from './nav';

const GENERAL: [string, string][] = [
  ['Ctrl K', 'Search machines, run a command'],
  ['c', 'New machine'],
  ['i', 'Import'],
  ['/', 'Filter the list'],
  ['t', 'Open or close the task panel'],
  ['[', 'Fold or unfold the sidebar'],
  ['?', 'This list'],
];

const LISTS: [string, string][] = [
  ['j  k', 'Next and previous row'],
  ['Enter', 'Open'],
  ['x', 'Select; with Shift, up to here'],
  ['Home  End', 'First and last row'],
];

function Group({ title, rows }: { title: string; rows: [string, string][] }) {
  return (
    <section>
      <h3>{title}</h3>
      <dl class="shortcuts">
        {rows.map(([keys, what]) => (
          <div key={keys}>
            <dt>{what}</dt>
            <dd>
              {keys.split(/\s+/).map((key) => (
                <kbd key={key}>{key}</kbd>
              ))}
            </dd>
          </div>
        ))}
      </dl>
    </section>
  );
}

export function ShortcutHelp({ onClose }: { onClose(): void }) {
  return (
    <Dialog title="Keyboard shortcuts" size="large" onClose={onClose}>
      <div class="shortcut-groups">
        <Group title="Everywhere" rows={GENERAL} />
        <Group
          title="Go to"
          rows={PLACES.filter((p) => p.shown()).map((p) => [p.shortcut, p.label])}
        />
        <Group title="In lists" rows={LISTS} />
      </div>
    </Dialog>
  );
}
