import type { ComponentChildren, JSX } from 'preact';
import type { LucideIcon } from './icons';

interface ButtonProps {
  children?: ComponentChildren;
  icon?: LucideIcon;
  variant?: 'primary' | 'danger' | 'ghost';
  small?: boolean;
  /** For a button that is an icon alone; also its tooltip. */
  label?: string;
  type?: 'button' | 'submit';
  disabled?: boolean;
  /** Why it cannot be used now. */
  why?: string;
  pressed?: boolean;
  /** It opens a menu, which is open or not. */
  expanded?: boolean;
  onClick?: (event: JSX.TargetedMouseEvent<HTMLButtonElement>) => void;
}

export function Button(props: ButtonProps) {
  const { icon: Icon, variant, small, label, children } = props;
  const classes = ['button', variant, small && 'small', !children && 'icon-only'];
  return (
    <button
      type={props.type ?? 'button'}
      class={classes.filter(Boolean).join(' ')}
      disabled={props.disabled}
      aria-label={children ? undefined : label}
      aria-pressed={props.pressed}
      aria-haspopup={props.expanded === undefined ? undefined : 'menu'}
      aria-expanded={props.expanded}
      title={props.disabled && props.why ? props.why : label}
      onClick={props.onClick}
    >
      {Icon && <Icon size={small ? 14 : 16} aria-hidden="true" />}
      {children}
    </button>
  );
}
