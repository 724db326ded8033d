import { describe, expect, it } from 'vitest';
import { ago, bytes, duration, osName, parseSize, percent } from '../src/lib/format';

describe('sizes', () => {
  it('are written in binary units with three digits', () => {
    expect(bytes(0)).toBe('0 B');
    expect(bytes(1023)).toBe('1023 B');
    expect(bytes(1536)).toBe('1.5 KiB');
    expect(bytes(1024 ** 3)).toBe('1 GiB');
    expect(bytes(100 * 1024 ** 2)).toBe('100 MiB');
    expect(bytes(null)).toBe('–');
  });
  it('are read as people write them, and nothing else', () => {
    expect(parseSize('4 GiB')).toBe(4 * 1024 ** 3);
    expect(parseSize('512m')).toBe(512 * 1024 ** 2);
    expect(parseSize('1,5 G')).toBe(1.5 * 1024 ** 3);
    expect(parseSize('20')).toBe(20 * 1024 ** 3);
    expect(parseSize('100 B')).toBe(100);
    for (const wrong of ['', '-1', '4 apples', '1e9', '0']) expect(parseSize(wrong)).toBeNull();
  });
  it('come back as they were written', () => {
    for (const size of [1024, 3 * 1024 ** 2, 20 * 1024 ** 3, 2 * 1024 ** 4])
      expect(parseSize(bytes(size))).toBe(size);
  });
});

describe('times', () => {
  it('show the two largest parts', () => {
    expect(duration(93784)).toBe('1 d 2 h');
    expect(duration(3600)).toBe('1 h');
    expect(duration(61)).toBe('1 min 1 s');
    expect(duration(0)).toBe('0 s');
  });
  it('are told as how long ago', () => {
    const now = Date.parse('2026-11-21T12:00:00Z');
    expect(ago('2026-11-21T11:59:55Z', now)).toBe('just now');
    expect(ago('2026-11-21T11:15:00Z', now)).toBe('45 min ago');
    expect(ago('2026-11-20T10:00:00Z', now)).toBe('yesterday');
    expect(ago(null, now)).toBe('–');
  });
});

describe('words', () => {
  it('name systems', () => {
    expect(osName('debian12-64')).toBe('Debian 12');
    expect(osName('windows2022-64')).toBe('Windows 2022');
    expect(osName('plan9')).toBe('plan9');
  });
  it('give small shares a digit', () => {
    expect(percent(3.14)).toBe('3.1 %');
    expect(percent(31.4)).toBe('31 %');
    expect(percent(undefined)).toBe('–');
  });
});
