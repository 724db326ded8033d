// A modal dialog on the browser's own <dialog>: it keeps the focus, gives it back, closes on Escape.
import type { ComponentChildren } from 'preact';
import { useEffect, useId, useRef } from 'preact/hooks';
import { X } from './icons';
import { Button } from './Button';

interface DialogProps {
  title: string;
  size?: 'small' | 'medium' | 'large';
  children: ComponentChildren;
  footer?: ComponentChildren;
  /** A form around body and footer: what Enter does. */
  onSubmit?(): void;
  onClose(): void;
}

export function Dialog({
  title,
  size = 'medium',
  children,
  footer,
  onSubmit,
  onClose,
}: DialogProps) {
  const ref = useRef<HTMLDialogElement>(null);
  const id = useId();
  useEffect(() => {
    const dialog = ref.current!;
    const before = document.activeElement as HTMLElement | null;
    dialog.showModal();
    dialog.querySelector<HTMLElement>('[data-autofocus]')?.focus();
    return () => before?.focus?.();
  }, []);
  return (
    <dialog
      ref={ref}
      class={`dialog ${size}`}
      aria-labelledby={id}
      onCancel={(e) => {
        e.preventDefault();
        onClose();
      }}
    >
      <form
        method="dialog"
        noValidate
        onSubmit={(e) => {
          e.preventDefault();
          onSubmit?.();
        }}
      >
        <header>
          <h2 id={id}>{title}</h2>
          <Button icon={X} variant="ghost" label="Close" onClick={onClose} />
        </header>
        <div class="dialog-body" tabIndex={-1}>
          {children}
        </div>
        {footer && <footer>{footer}</footer>}
      </form>
    </dialog>
  );
}
