// How numbers, times and states are written. English, binary units as hypervisors use them.
import type { MachineState } from '../api/types';

const UNITS = ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB'];

/** 1536 -> "1.5 KiB"; three digits at most. */
export function bytes(value: number | null | undefined): string {
  if (value == null || !Number.isFinite(value)) return '–';
  let unit = 0;
  let rest = Math.abs(value);
  while (rest >= 1024 && unit < UNITS.length - 1) {
    rest /= 1024;
    unit++;
  }
  const digits = unit === 0 || rest >= 100 || Number.isInteger(rest) ? 0 : rest >= 10 ? 1 : 2;
  const text = rest.toFixed(digits);
  return `${value < 0 ? '-' : ''}${text.includes('.') ? text.replace(/\.?0+$/, '') : text} ${UNITS[unit]}`;
}

export const rate = (value: number | null | undefined): string =>
  value == null ? '–' : `${bytes(value)}/s`;

export function percent(value: number | null | undefined, digits = 0): string {
  if (value == null || !Number.isFinite(value)) return '–';
  const shown = value > 0 && value < 10 && digits === 0 ? 1 : digits;
  return `${value.toFixed(shown).replace(/\.0$/, '')} %`;
}

/** "4 GiB", "512M", "1.5g" to bytes; a bare number is in `unit`. null when it says no size. */
export function parseSize(text: string, unit = 'GiB'): number | null {
  const match = /^\s*(\d+(?:[.,]\d+)?)\s*([kmgtp]?)(i?b)?\s*$/i.exec(text);
  if (!match) return null;
  const amount = Number(match[1]!.replace(',', '.'));
  const letter = (match[2] || (match[3] ? 'b' : unit[0]!)).toLowerCase();
  const power = letter === 'b' ? 0 : 'bkmgtp'.indexOf(letter);
  const value = Math.round(amount * 1024 ** power);
  return Number.isSafeInteger(value) && value > 0 ? value : null;
}

/** 93784 s -> "1 d 2 h"; the two largest parts. */
export function duration(seconds: number | null | undefined): string {
  if (seconds == null || !Number.isFinite(seconds)) return '–';
  const whole = Math.max(0, Math.floor(seconds));
  const parts: [number, string][] = [
    [Math.floor(whole / 86400), 'd'],
    [Math.floor(whole / 3600) % 24, 'h'],
    [Math.floor(whole / 60) % 60, 'min'],
    [whole % 60, 's'],
  ];
  const first = parts.findIndex(([n]) => n > 0);
  if (first < 0) return '0 s';
  return parts
    .slice(first, first + 2)
    .filter(([n]) => n > 0)
    .map(([n, unit]) => `${n} ${unit}`)
    .join(' ');
}

/** "just now", "5 min ago", "yesterday", else the date. */
export function ago(time: string | null | undefined, now = Date.now()): string {
  if (!time) return '–';
  const seconds = Math.round((now - Date.parse(time)) / 1000);
  if (Number.isNaN(seconds)) return '–';
  if (seconds < 10) return 'just now';
  if (seconds < 60) return `${seconds} s ago`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ago`;
  if (seconds < 86400) return `${Math.floor(seconds / 3600)} h ago`;
  if (seconds < 172800) return 'yesterday';
  if (seconds < 86400 * 14) return `${Math.floor(seconds / 86400)} d ago`;
  return dateOnly(time);
}

const pad = (n: number): string => String(n).padStart(2, '0');

export function dateOnly(time: string): string {
  const d = new Date(time);
  return `${d.getFullYear()}-${pad(d.getMonth() + 1)}-${pad(d.getDate())}`;
}

/** Local time, as in logs: 2026-11-21 17:12:50. */
export function dateTime(time: string | null | undefined): string {
  if (!time) return '–';
  const d = new Date(time);
  if (Number.isNaN(d.getTime())) return '–';
  return `${dateOnly(time)} ${pad(d.getHours())}:${pad(d.getMinutes())}:${pad(d.getSeconds())}`;
}

export const clock = (ms: number): string => {
  const d = new Date(ms);
  return `${pad(d.getHours())}:${pad(d.getMinutes())}`;
};

export const count = (n: number, one: string, many = `${one}s`): string =>
  `${n} ${n === 1 ? one : many}`;

export type Tone = 'ok' | 'info' | 'warn' | 'bad' | 'idle';

const STATE_TONES: Record<MachineState, Tone> = {
  running: 'ok',
  starting: 'info',
  stopping: 'info',
  creating: 'info',
  deleting: 'info',
  paused: 'warn',
  crashed: 'bad',
  stopped: 'idle',
};

export const stateTone = (state: MachineState): Tone => STATE_TONES[state] ?? 'idle';

export const capitalize = (text: string): string =>
  text ? text[0]!.toUpperCase() + text.slice(1) : text;

const OS_FAMILIES: [RegExp, string][] = [
  [/^debian(\d+)?/i, 'Debian'],
  [/^ubuntu/i, 'Ubuntu'],
  [/^(rhel|redhat|centos|rocky|alma)/i, 'Enterprise Linux'],
  [/^fedora/i, 'Fedora'],
  [/^(suse|sles|opensuse)/i, 'SUSE'],
  [/^alpine/i, 'Alpine'],
  [/^(windows|win)/i, 'Windows'],
  [/^freebsd/i, 'FreeBSD'],
  [/^openbsd/i, 'OpenBSD'],
  [/^netbsd/i, 'NetBSD'],
];

/** "debian12-64" -> "Debian 12". */
export function osName(os: string | null | undefined): string {
  if (!os) return 'Not said';
  for (const [pattern, name] of OS_FAMILIES) {
    if (!pattern.test(os)) continue;
    const version = /(\d+(?:\.\d+)*)/.exec(os.replace(/[-_]?64$/, ''));
    return version ? `${name} ${version[1]}` : name;
  }
  return os;
}
