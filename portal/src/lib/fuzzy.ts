// Finding by a few letters, as a command palette does.

/**
 * How well `needle` is found in `text`: null for not at all, else higher is better. Letters must come in
 * order; runs, word starts and early places count more.
 */
export function fuzzyScore(needle: string, text: string): number | null {
  const wanted = needle.toLowerCase().replace(/\s+/g, '');
  const hay = text.toLowerCase();
  if (!wanted) return 0;
  const whole = hay.indexOf(needle.toLowerCase().trim());
  if (whole >= 0) return 1000 - whole - hay.length / 100 + (atWordStart(hay, whole) ? 200 : 0);
  let score = 0;
  let at = 0;
  let previous = -2;
  for (const letter of wanted) {
    const found = hay.indexOf(letter, at);
    if (found < 0) return null;
    score += found === previous + 1 ? 8 : atWordStart(hay, found) ? 6 : 1;
    previous = found;
    at = found + 1;
  }
  return score - hay.length / 100;
}

const atWordStart = (text: string, at: number): boolean =>
  at === 0 || !/[a-z0-9]/.test(text[at - 1]!);

export function fuzzyFilter<T>(items: T[], needle: string, textOf: (item: T) => string): T[] {
  if (!needle.trim()) return items;
  return items
    .map((item) => ({ item, score: fuzzyScore(needle, textOf(item)) }))
    .filter((x): x is { item: T; score: number } => x.score !== null)
    .sort((a, b) => b.score - a.score)
    .map((x) => x.item);
}
