// The question before something that cannot be taken back: what happens, to what, and what to type.
import { useState } from 'preact/hooks';
import { question, type Question } from '../state/notices';
import { Button } from '../ui/Button';
import { Dialog } from '../ui/Dialog';
import { TextField } from '../ui/Field';

export function QuestionDialog() {
  const asked = question.value;
  return asked ? <Asked key={asked.title} asked={asked} /> : null;
}

function Asked({ asked }: { asked: Question }) {
  const [choice, setChoice] = useState(asked.choice ?? '');
  const [typed, setTyped] = useState('');
  const ready = !asked.typed || typed.trim() === asked.typed;
  const answer = (): void => {
    if (ready) asked.resolve(choice);
  };
  return (
    <Dialog
      title={asked.title}
      size="small"
      onClose={() => asked.resolve(null)}
      onSubmit={answer}
      footer={
        <>
          <Button onClick={() => asked.resolve(null)}>Cancel</Button>
          <Button type="submit" variant={asked.danger ? 'danger' : 'primary'} disabled={!ready}>
            {asked.action}
          </Button>
        </>
      }
    >
      <div class="question">
        {asked.body.map((line) => (
          <p key={line}>{line}</p>
        ))}
        {asked.items && (
          <ul>
            {asked.items.map((item) => (
              <li key={item}>{item}</li>
            ))}
          </ul>
        )}
        {asked.choices && (
          <div class="choices" role="radiogroup" aria-label={asked.title}>
            {asked.choices.map((c) => (
              <button
                key={c.value}
                type="button"
                role="radio"
                class="choice"
                aria-checked={choice === c.value}
                onClick={() => setChoice(c.value)}
              >
                <b>{c.label}</b>
                {c.hint && <span>{c.hint}</span>}
              </button>
            ))}
          </div>
        )}
        {asked.typed && (
          <TextField
            label={`Type ${asked.typed} to confirm`}
            value={typed}
            onInput={setTyped}
            autoFocus
          />
        )}
      </div>
    </Dialog>
  );
}
