// A button that opens a menu: arrow keys, Home, End, Escape, letters; closes when the focus leaves.
import { useEffect, useRef, useState } from 'preact/hooks';
import type { LucideIcon } from './icons';
import { Button } from './Button';

export interface MenuItem {
  label: string;
  icon?: LucideIcon;
  hint?: string;
  danger?: boolean;
  disabled?: boolean;
  /** A line above it. */
  apart?: boolean;
  run(): void;
}

interface MenuProps {
  label: string;
  icon?: LucideIcon;
  items: MenuItem[];
  text?: string;
  variant?: 'primary' | 'ghost';
  small?: boolean;
  up?: boolean;
}

export function Menu({ label, icon, items, text, variant, small, up }: MenuProps) {
  const [open, setOpen] = useState(false);
  const root = useRef<HTMLDivElement>(null);
  const entries = (): HTMLElement[] => [
    ...(root.current?.querySelectorAll<HTMLElement>('[role=menuitem]:not([disabled])') ?? []),
  ];
  const close = (): void => {
    setOpen(false);
    root.current?.querySelector<HTMLElement>('button')?.focus();
  };
  useEffect(() => {
    if (!open) return;
    entries()[0]?.focus();
    const outside = (e: Event): void => {
      if (!root.current?.contains(e.target as Node)) setOpen(false);
    };
    document.addEventListener('pointerdown', outside);
    return () => document.removeEventListener('pointerdown', outside);
  }, [open]);
  const onKeyDown = (e: KeyboardEvent): void => {
    if (!open) {
      if (e.key === 'ArrowDown') {
        e.preventDefault();
        setOpen(true);
      }
      return;
    }
    const list = entries();
    const at = list.indexOf(document.activeElement as HTMLElement);
    const move = (to: number): void => list[(to + list.length) % list.length]?.focus();
    if (e.key === 'ArrowDown') move(at + 1);
    else if (e.key === 'ArrowUp') move(at - 1);
    else if (e.key === 'Home') move(0);
    else if (e.key === 'End') move(list.length - 1);
    else if (e.key === 'Escape') close();
    else if (e.key === 'Tab') return setOpen(false);
    else if (e.key.length === 1 && e.key !== ' ') {
      const found = [...list.slice(at + 1), ...list.slice(0, at + 1)].find((x) =>
        x.textContent?.toLowerCase().startsWith(e.key.toLowerCase()),
      );
      found?.focus();
    } else return;
    e.preventDefault();
    e.stopPropagation();
  };
  return (
    <div class="menu" ref={root} onKeyDown={onKeyDown}>
      <Button
        icon={icon}
        variant={variant}
        small={small}
        label={label}
        expanded={open}
        onClick={() => setOpen(!open)}
      >
        {text}
      </Button>
      {open && (
        <div class={`menu-list${up ? ' up' : ''}`} role="menu" aria-label={label}>
          {items.map((item) => (
            <button
              key={item.label}
              type="button"
              role="menuitem"
              tabIndex={-1}
              disabled={item.disabled}
              class={[item.danger && 'danger', item.apart && 'apart'].filter(Boolean).join(' ')}
              onClick={() => {
                close();
                item.run();
              }}
            >
              {item.icon ? <item.icon size={15} aria-hidden="true" /> : <span class="no-icon" />}
              <span>{item.label}</span>
              {item.hint && <kbd>{item.hint}</kbd>}
            </button>
          ))}
        </div>
      )}
    </div>
  );
}
