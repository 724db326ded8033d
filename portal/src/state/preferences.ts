// What a user chose for this browser: theme, open folders, columns. Kept in localStorage.
import { effect, signal, type Signal } from '@preact/signals';

function kept<T>(name: string, initial: T): Signal<T> {
  const key = `mullion.${name}`;
  let start = initial;
  try {
    const text = localStorage.getItem(key);
    if (text !== null) start = JSON.parse(text) as T;
  } catch {
    // Unreadable or forbidden: the default.
  }
  const value = signal(start);
  let first = true;
  effect(() => {
    const text = JSON.stringify(value.value);
    if (first) {
      first = false;
      return;
    }
    try {
      localStorage.setItem(key, text);
    } catch {
      // Lasts as long as the page, then.
    }
  });
  return value;
}

export type Theme = 'auto' | 'light' | 'dark';

export const theme = kept<Theme>('theme', 'auto');
export const openFolders = kept<string[]>('folders', []);
export const openPools = kept<string[]>('pools', []);
export const treeBy = kept<'folder' | 'pool'>('tree', 'folder');
export const taskPanelOpen = kept('tasks', false);
export const sidebarOpen = kept('sidebar', true);
export const machineSort = kept<{ key: string; down: boolean }>('sort', {
  key: 'name',
  down: false,
});

const media =
  typeof matchMedia === 'function' ? matchMedia('(prefers-color-scheme: dark)') : undefined;
const systemDark = signal(media?.matches ?? false);
media?.addEventListener('change', (e) => (systemDark.value = e.matches));

export const isDark = (): boolean =>
  theme.value === 'dark' || (theme.value === 'auto' && systemDark.value);

export function applyTheme(): () => void {
  return effect(() => {
    document.documentElement.dataset.theme = isDark() ? 'dark' : 'light';
  });
}

export function toggleIn(list: Signal<string[]>, path: string, open?: boolean): void {
  const now = new Set(list.value);
  if (open ?? !now.has(path)) now.add(path);
  else now.delete(path);
  list.value = [...now];
}
