// One field for everything: machines, places, and what can be done to the machine in view.
import { useEffect, useLayoutEffect, useRef, useState } from 'preact/hooks';
import {
  Monitor,
  Plus,
  Power as PowerIcon,
  Search,
  SunMoon,
  Upload,
  type LucideIcon,
} from '../ui/icons';
import { fuzzyFilter } from '../lib/fuzzy';
import { link, navigate, route } from '../lib/router';
import { applies, power, POWER, type Power } from '../state/actions';
import { isDark, theme } from '../state/preferences';
import { machineList, machines, mayChange } from '../state/store';
import { PLACES } from './nav';
import { openImport, surface } from './ui-state';

interface Command {
  id: string;
  label: string;
  group: string;
  icon: LucideIcon;
  hint?: string;
  run(): void;
}

function machineCommands(): Command[] {
  const { segments } = route.value;
  const here =
    segments[0] === 'machines' && segments[1] ? machines.value.get(segments[1]) : undefined;
  if (!here || !mayChange.value) return [];
  return (Object.keys(POWER) as Power[])
    .filter((what) => applies(what, here))
    .map((what) => ({
      id: `power-${what}`,
      label: `${POWER[what].label} ${here.name}`,
      group: 'This machine',
      icon: PowerIcon,
      run: () => void power(what, [here]),
    }));
}

function commands(): Command[] {
  const list: Command[] = [...machineCommands()];
  if (mayChange.value) {
    list.push(
      {
        id: 'create',
        label: 'New machine',
        group: 'Do',
        icon: Plus,
        hint: 'c',
        run: () => (surface.value = 'create'),
      },
      {
        id: 'import',
        label: 'Import an appliance, disk or ISO',
        group: 'Do',
        icon: Upload,
        hint: 'i',
        run: () => openImport(),
      },
    );
  }
  list.push({
    id: 'theme',
    label: isDark() ? 'Light theme' : 'Dark theme',
    group: 'Do',
    icon: SunMoon,
    run: () => (theme.value = isDark() ? 'light' : 'dark'),
  });
  for (const p of PLACES.filter((x) => x.shown()))
    list.push({
      id: p.href,
      label: p.label,
      group: 'Go to',
      icon: p.icon,
      hint: p.shortcut,
      run: () => navigate(p.href),
    });
  for (const m of machineList.value)
    list.push({
      id: m.id,
      label: m.name,
      group: 'Machines',
      icon: Monitor,
      hint: m.state,
      run: () => navigate(link('machines', m.id)),
    });
  return list;
}

const SHOWN = 40;

export function CommandPalette({ onClose }: { onClose(): void }) {
  const [text, setText] = useState('');
  const [at, setAt] = useState(0);
  const dialog = useRef<HTMLDialogElement>(null);
  const found = fuzzyFilter(commands(), text, (c) => c.label).slice(0, SHOWN);
  const current = Math.min(at, found.length - 1);

  // Before anything else happens: what is typed right after the shortcut belongs to the field.
  useLayoutEffect(() => {
    const before = document.activeElement as HTMLElement | null;
    dialog.current!.showModal();
    return () => before?.focus?.();
  }, []);
  useEffect(() => {
    document.getElementById(`command-${current}`)?.scrollIntoView({ block: 'nearest' });
  }, [current]);

  const run = (command: Command | undefined): void => {
    if (!command) return;
    onClose();
    command.run();
  };
  const onKeyDown = (e: KeyboardEvent): void => {
    if (e.key === 'ArrowDown') setAt((current + 1) % Math.max(1, found.length));
    else if (e.key === 'ArrowUp') setAt((current + found.length - 1) % Math.max(1, found.length));
    else if (e.key === 'Enter') run(found[current]);
    else return;
    e.preventDefault();
  };

  return (
    <dialog
      ref={dialog}
      class="palette"
      aria-label="Search or run a command"
      onCancel={(e) => (e.preventDefault(), onClose())}
      onClick={(e) => e.target === dialog.current && onClose()}
      onKeyDown={onKeyDown}
    >
      <div class="palette-input">
        <Search size={16} aria-hidden="true" />
        <input
          type="text"
          role="combobox"
          aria-expanded="true"
          aria-controls="commands"
          aria-activedescendant={found.length ? `command-${current}` : undefined}
          aria-label="Search or run a command"
          placeholder="Machine, place or command"
          autoFocus
          value={text}
          onInput={(e) => (setText(e.currentTarget.value), setAt(0))}
        />
        <kbd>Esc</kbd>
      </div>
      <div id="commands" role="listbox" aria-label="Results" class="palette-list">
        {found.map((c, i) => (
          <div key={c.id} role="presentation">
            {(i === 0 || found[i - 1]!.group !== c.group) && !text && (
              <div class="palette-group" role="presentation">
                {c.group}
              </div>
            )}
            <div
              id={`command-${i}`}
              role="option"
              aria-selected={i === current}
              onClick={() => run(c)}
              onPointerMove={() => i !== current && setAt(i)}
            >
              <c.icon size={15} aria-hidden="true" />
              <span class="clip">{c.label}</span>
              {c.hint && <span class="hint">{c.hint}</span>}
            </div>
          </div>
        ))}
        {!found.length && <p class="palette-none">Nothing found for “{text}”.</p>}
      </div>
    </dialog>
  );
}
