import { Check, X } from '../../ui/icons';
import { bytes, duration, rate } from '../../lib/format';
import { cancelTransfer, transfers, type Transfer } from '../../state/transfers';
import { Button } from '../../ui/Button';

function note(t: Transfer): string {
  if (t.problem) return t.problem;
  if (t.state === 'done') return 'Uploaded; the import goes on as a task.';
  if (t.waiting) return 'The connection is lost; it goes on by itself.';
  const left = t.rate ? `, ${duration((t.size - t.sent) / t.rate)} left` : '';
  return `${bytes(t.sent)} of ${bytes(t.size)}, ${rate(t.rate)}${left}`;
}

export function TransferList() {
  const list = transfers.value;
  if (!list.length) return null;
  return (
    <ul class="transfers" aria-label="Uploads">
      {list.map((t) => (
        <li key={t.id}>
          <div>
            <b class="clip">{t.name}</b>
            <span class={t.problem ? 'bad-text' : 'muted'}>{note(t)}</span>
          </div>
          {t.state === 'done' ? (
            <Check size={16} aria-label="Done" />
          ) : (
            <Button
              small
              variant="ghost"
              icon={X}
              label={`Stop ${t.name}`}
              onClick={() => cancelTransfer(t.id)}
            />
          )}
          <span
            class="progress"
            role="progressbar"
            aria-label={`Upload of ${t.name}`}
            aria-valuemin={0}
            aria-valuemax={100}
            aria-valuenow={Math.round((t.sent / Math.max(1, t.size)) * 100)}
          >
            <span style={{ width: `${(t.sent / Math.max(1, t.size)) * 100}%` }} />
          </span>
        </li>
      ))}
    </ul>
  );
}
