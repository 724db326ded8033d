// The frame around every page: sidebar, top bar, task panel, and the surfaces above them.
import { useEffect, useRef } from 'preact/hooks';
import { bind, listen } from '../lib/hotkeys';
import { navigate, route } from '../lib/router';
import { sidebarOpen, taskPanelOpen } from '../state/preferences';
import { connection, mayChange, reconnectNow } from '../state/store';
import { CreateWizard } from '../pages/create/CreateWizard';
import { ImportWizard } from '../pages/import/ImportWizard';
import { Banner } from '../ui/bits';
import { Button } from '../ui/Button';
import { CommandPalette } from './CommandPalette';
import { DropTarget } from './DropTarget';
import { PLACES } from './nav';
import { CurrentPage } from './routes';
import { ShortcutHelp } from './ShortcutHelp';
import { Sidebar } from './Sidebar';
import { TaskPanel } from './TaskPanel';
import { TopBar } from './TopBar';
import { drawerOpen, surface } from './ui-state';

function useShortcuts(): void {
  useEffect(() => {
    const undo = [
      listen(),
      bind('mod+k', () => (surface.value = surface.value === 'palette' ? null : 'palette')),
      bind('?', () => (surface.value = 'shortcuts')),
      bind('c', () => mayChange.value && !surface.value && (surface.value = 'create')),
      bind('i', () => mayChange.value && !surface.value && (surface.value = 'import')),
      bind('t', () => (taskPanelOpen.value = !taskPanelOpen.value)),
      bind('[', () => (sidebarOpen.value = !sidebarOpen.value)),
      ...PLACES.map((place) => bind(place.shortcut, () => place.shown() && navigate(place.href))),
    ];
    return () => undo.forEach((f) => f());
  }, []);
}

/** A new page starts at its top, and who hears the page hears its heading. */
function useFocusOnNavigation(): { current: HTMLElement | null } {
  const main = useRef<HTMLElement>(null);
  const first = useRef(true);
  const path = route.value.path;
  useEffect(() => {
    drawerOpen.value = false;
    if (first.current) {
      first.current = false;
      return;
    }
    main.current?.scrollTo(0, 0);
    main.current?.querySelector<HTMLElement>('h1')?.focus({ preventScroll: true });
  }, [path]);
  return main;
}

export function Shell() {
  useShortcuts();
  const main = useFocusOnNavigation();
  const open = surface.value;
  const close = (): void => void (surface.value = null);
  const classes = ['shell', !sidebarOpen.value && 'narrow', drawerOpen.value && 'drawer'];
  return (
    <DropTarget>
      <div class={classes.filter(Boolean).join(' ')}>
        <a class="skip" href="#main" onClick={(e) => (e.preventDefault(), main.current?.focus())}>
          Skip to content
        </a>
        <TopBar />
        <Sidebar />
        <main id="main" ref={main} tabIndex={-1} data-path={route.value.path}>
          {connection.value === 'lost' && (
            <div class="offline">
              <Banner tone="warn">
                The host does not answer. What you see may be old; trying again.
                <div class="actions">
                  <Button small onClick={reconnectNow}>
                    Try now
                  </Button>
                </div>
              </Banner>
            </div>
          )}
          <CurrentPage />
        </main>
        <TaskPanel />
        {drawerOpen.value && (
          <div class="scrim" onClick={() => (drawerOpen.value = false)} aria-hidden="true" />
        )}
      </div>
      {open === 'palette' && <CommandPalette onClose={close} />}
      {open === 'shortcuts' && <ShortcutHelp onClose={close} />}
      {open === 'create' && <CreateWizard onClose={close} />}
      {open === 'import' && <ImportWizard onClose={close} />}
    </DropTarget>
  );
}
