import { Check } from '../../ui/icons';

interface StepsProps {
  titles: string[];
  current: number;
  open(index: number): boolean;
  onPick(index: number): void;
}

export function Steps({ titles, current, open, onPick }: StepsProps) {
  return (
    <ol class="steps">
      {titles.map((title, i) => (
        <li key={title}>
          <button
            type="button"
            class={i < current ? 'done' : ''}
            aria-current={i === current ? 'step' : undefined}
            disabled={!open(i)}
            onClick={() => onPick(i)}
          >
            <i>{i < current ? <Check size={12} aria-label="Done" /> : i + 1}</i>
            {title}
          </button>
        </li>
      ))}
    </ol>
  );
}
