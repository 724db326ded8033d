// A file dragged over the portal, wherever it is, can be dropped to import it.
import type { ComponentChildren } from 'preact';
import { useRef, useState } from 'preact/hooks';
import { FileUp } from '../ui/icons';
import { mayChange } from '../state/store';
import { openImport } from './ui-state';

const hasFiles = (e: DragEvent): boolean => !!e.dataTransfer?.types.includes('Files');

export function DropTarget({ children }: { children: ComponentChildren }) {
  const [over, setOver] = useState(false);
  const depth = useRef(0);
  if (!mayChange.value) return <>{children}</>;
  return (
    <div
      class="drop-target"
      onDragEnter={(e) => {
        if (!hasFiles(e)) return;
        e.preventDefault();
        depth.current++;
        setOver(true);
      }}
      onDragOver={(e) => hasFiles(e) && e.preventDefault()}
      onDragLeave={(e) => {
        if (hasFiles(e) && --depth.current <= 0) setOver(false);
      }}
      onDrop={(e) => {
        if (!hasFiles(e)) return;
        e.preventDefault();
        depth.current = 0;
        setOver(false);
        openImport([...(e.dataTransfer?.files ?? [])]);
      }}
    >
      {children}
      {over && (
        <div class="drop-overlay" aria-hidden="true">
          <FileUp size={40} />
          <b>Drop to import</b>
          <span>An appliance (OVA), a disk (QCOW2, VMDK, VHDX, raw, …) or an ISO</span>
        </div>
      )}
    </div>
  );
}
