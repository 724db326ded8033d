import { X } from '../ui/icons';
import { dismiss, notices } from '../state/notices';

export function Notices() {
  return (
    <div class="notices" role="status" aria-live="polite">
      {notices.value.map((n) => (
        <div key={n.id} class={`notice ${n.tone}`}>
          <span class="bar" aria-hidden="true" />
          <p>{n.href ? <a href={n.href}>{n.text}</a> : n.text}</p>
          <button type="button" aria-label="Dismiss" onClick={() => dismiss(n.id)}>
            <X size={14} aria-hidden="true" />
          </button>
        </div>
      ))}
    </div>
  );
}
