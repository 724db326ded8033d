// Which rows of a long list are in view.
import type { RefObject } from 'preact';
import { useLayoutEffect, useState } from 'preact/hooks';

const OVERSCAN = 8;

export function windowOf(
  top: number,
  height: number,
  count: number,
  rowHeight: number,
): { start: number; end: number } {
  const start = Math.max(0, Math.floor(top / rowHeight) - OVERSCAN);
  const end = Math.min(count, Math.ceil((top + height) / rowHeight) + OVERSCAN);
  return { start: Math.min(start, end), end };
}

export function useVirtual(
  box: RefObject<HTMLElement>,
  count: number,
  rowHeight: number,
  on: boolean,
): { start: number; end: number; onScroll?: () => void } {
  const [view, setView] = useState({ top: 0, height: 800 });
  const measure = (): void => {
    const element = box.current;
    if (element) setView({ top: element.scrollTop, height: element.clientHeight });
  };
  useLayoutEffect(() => {
    if (!on || !box.current) return;
    measure();
    const observer = new ResizeObserver(measure);
    observer.observe(box.current);
    return () => observer.disconnect();
  }, [on]);
  if (!on) return { start: 0, end: count };
  return { ...windowOf(view.top, view.height, count, rowHeight), onScroll: measure };
}
