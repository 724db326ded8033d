// The small parts that every page is made of.
import type { ComponentChildren } from 'preact';
import { useState } from 'preact/hooks';
import { Check, Copy, type LucideIcon } from './icons';
import type { MachineState } from '../api/types';
import { capitalize, stateTone, type Tone } from '../lib/format';
import { Button } from './Button';

export function State({ state }: { state: MachineState }) {
  return (
    <Status
      tone={stateTone(state)}
      text={capitalize(state)}
      busy={/ing$/.test(state) && state !== 'running'}
    />
  );
}

export function Status({ tone, text, busy }: { tone: Tone; text: string; busy?: boolean }) {
  return (
    <span class={`status ${tone}${busy ? ' busy' : ''}`}>
      <span class="dot" aria-hidden="true" />
      {text}
    </span>
  );
}

export function Badge({ children, tone }: { children: ComponentChildren; tone?: Tone }) {
  return <span class={`badge ${tone ?? ''}`}>{children}</span>;
}

export function Tag({ name, href }: { name: string; href?: string }) {
  return href ? (
    <a class="tag" href={href}>
      {name}
    </a>
  ) : (
    <span class="tag">{name}</span>
  );
}

interface MeterProps {
  value: number;
  max: number;
  label: string;
  /** What stands beside the bar; not said again by it. */
  text?: string;
}

export function Meter({ value, max, label, text }: MeterProps) {
  const share = max > 0 ? Math.min(100, (value / max) * 100) : 0;
  const tone = share >= 95 ? 'bad' : share >= 85 ? 'warn' : '';
  return (
    <span class="meter">
      <span
        class={`meter-bar ${tone}`}
        role="meter"
        aria-label={label}
        aria-valuemin={0}
        aria-valuemax={100}
        aria-valuenow={Math.round(share)}
      >
        <span style={{ width: `${share}%` }} />
      </span>
      {text && <span class="meter-text">{text}</span>}
    </span>
  );
}

interface PanelProps {
  title: string;
  actions?: ComponentChildren;
  children: ComponentChildren;
  flush?: boolean;
  wide?: boolean;
}

export function Panel({ title, actions, children, flush, wide }: PanelProps) {
  return (
    <section class={`panel${flush ? ' flush' : ''}${wide ? ' wide' : ''}`} aria-label={title}>
      <header>
        <h2>{title}</h2>
        {actions && <div class="actions">{actions}</div>}
      </header>
      <div class="panel-body">{children}</div>
    </section>
  );
}

interface PageProps {
  title: string;
  lead?: ComponentChildren;
  actions?: ComponentChildren;
  children: ComponentChildren;
  fill?: boolean;
}

export function Page({ title, lead, actions, children, fill }: PageProps) {
  return (
    <div class={`page${fill ? ' fill' : ''}`}>
      <header class="page-head">
        <div>
          <h1 tabIndex={-1}>{title}</h1>
          {lead && <p class="lead">{lead}</p>}
        </div>
        {actions && <div class="actions">{actions}</div>}
      </header>
      {children}
    </div>
  );
}

interface EmptyProps {
  icon: LucideIcon;
  title: string;
  children?: ComponentChildren;
}

export function Empty({ icon: Icon, title, children }: EmptyProps) {
  return (
    <div class="empty">
      <Icon size={28} aria-hidden="true" />
      <p class="empty-title">{title}</p>
      {children && <div>{children}</div>}
    </div>
  );
}

/** Name and value pairs. */
export function Facts({ rows }: { rows: [string, ComponentChildren][] }) {
  return (
    <dl class="facts">
      {rows.map(([name, value]) => (
        <div key={name}>
          <dt>{name}</dt>
          <dd>{value}</dd>
        </div>
      ))}
    </dl>
  );
}

export function Banner({ tone, children }: { tone: Tone; children: ComponentChildren }) {
  return (
    <div class={`banner ${tone}`} role={tone === 'bad' ? 'alert' : 'status'}>
      {children}
    </div>
  );
}

export function CopyButton({ text, label }: { text: string; label: string }) {
  const [done, setDone] = useState(false);
  return (
    <Button
      small
      variant="ghost"
      icon={done ? Check : Copy}
      label={done ? 'Copied' : label}
      onClick={() => {
        void navigator.clipboard?.writeText(text).then(() => {
          setDone(true);
          setTimeout(() => setDone(false), 1500);
        });
      }}
    />
  );
}

export function Tabs({
  label,
  items,
  current,
}: {
  label: string;
  items: { href: string; text: string; badge?: number }[];
  current: string;
}) {
  return (
    <nav class="tabs" aria-label={label}>
      {items.map((item) => (
        <a
          key={item.href}
          href={item.href}
          aria-current={item.href === current ? 'page' : undefined}
        >
          {item.text}
          {item.badge ? <span class="count">{item.badge}</span> : null}
        </a>
      ))}
    </nav>
  );
}
