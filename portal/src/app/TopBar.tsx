import {
  ListChecks,
  LogOut,
  Keyboard,
  Menu as MenuIcon,
  Moon,
  Plus,
  Search,
  Sun,
  SunMoon,
  Upload,
  UserRound,
  KeyRound,
} from '../ui/icons';
import { navigate } from '../lib/router';
import { taskPanelOpen, theme, type Theme } from '../state/preferences';
import { connection, host, logout, mayChange, runningTasks, session } from '../state/store';
import { Button } from '../ui/Button';
import { Menu } from '../ui/Menu';
import { Logo } from './Logo';
import { drawerOpen, openImport, surface } from './ui-state';

const THEMES: Record<Theme, { next: Theme; icon: typeof Sun; label: string }> = {
  auto: { next: 'light', icon: SunMoon, label: 'Theme: as the system' },
  light: { next: 'dark', icon: Sun, label: 'Theme: light' },
  dark: { next: 'auto', icon: Moon, label: 'Theme: dark' },
};

function Live() {
  const state = connection.value;
  const text = { live: 'Live', connecting: 'Connecting', lost: 'Not connected' }[state];
  return (
    <span class={`live ${state}`} title={`Updates: ${text.toLowerCase()}`}>
      <i aria-hidden="true" />
      <span class="only-read">{text}</span>
    </span>
  );
}

export function TopBar() {
  const now = THEMES[theme.value];
  const busy = runningTasks.value.length;
  return (
    <header class="topbar">
      <Button
        icon={MenuIcon}
        variant="ghost"
        label="Inventory"
        onClick={() => (drawerOpen.value = !drawerOpen.value)}
      />
      <a class="brand" href="#/">
        <Logo />
        <b>Mullion</b>
        <span class="host-name">{host.value?.name}</span>
      </a>
      <Live />
      <button type="button" class="palette-button" onClick={() => (surface.value = 'palette')}>
        <Search size={15} aria-hidden="true" />
        <span>Search or run a command</span>
        <kbd>Ctrl K</kbd>
      </button>
      <div class="topbar-end">
        {mayChange.value && (
          <>
            <span class="wide-only">
              <Button icon={Upload} onClick={() => openImport()}>
                Import
              </Button>
            </span>
            <Button icon={Plus} variant="primary" onClick={() => (surface.value = 'create')}>
              <span class="button-text">New machine</span>
            </Button>
          </>
        )}
        <span class="task-button">
          <Button
            icon={ListChecks}
            variant="ghost"
            label={busy ? `Tasks, ${busy} running` : 'Tasks'}
            pressed={taskPanelOpen.value}
            onClick={() => (taskPanelOpen.value = !taskPanelOpen.value)}
          />
          {busy > 0 && <i aria-hidden="true">{busy}</i>}
        </span>
        <span class="wide-only">
          <Button
            icon={now.icon}
            variant="ghost"
            label={now.label}
            onClick={() => (theme.value = now.next)}
          />
        </span>
        <Menu
          label={`Account ${session.value?.user}`}
          icon={UserRound}
          variant="ghost"
          items={[
            {
              label: `Theme: ${now.next}`,
              icon: THEMES[now.next].icon,
              run: () => (theme.value = now.next),
            },
            {
              label: 'Keyboard shortcuts',
              icon: Keyboard,
              hint: '?',
              run: () => (surface.value = 'shortcuts'),
            },
            { label: 'API tokens', icon: KeyRound, run: () => navigate('#/access/tokens') },
            {
              label: `Log out ${session.value?.user}`,
              icon: LogOut,
              apart: true,
              run: () => void logout(),
            },
          ]}
        />
      </div>
    </header>
  );
}
