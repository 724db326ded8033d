// Which of the shell's own surfaces is open.
import { signal } from '@preact/signals';

export type Surface = 'palette' | 'shortcuts' | 'create' | 'import' | null;

export const surface = signal<Surface>(null);
/** Files handed to the import wizard by dropping them anywhere. */
export const droppedFiles = signal<File[]>([]);
/** The sidebar as a drawer, on narrow screens. */
export const drawerOpen = signal(false);

export function openImport(files: File[] = []): void {
  droppedFiles.value = files;
  surface.value = 'import';
}
