// Form fields: a label, the control, and below it either what is wrong or a hint.
import type { ComponentChildren } from 'preact';
import { useId, useState } from 'preact/hooks';
import { bytes, parseSize } from '../lib/format';

interface FieldProps {
  label: string;
  hint?: ComponentChildren;
  error?: string | null;
  wide?: boolean;
}

interface Wiring {
  id: string;
  'aria-describedby': string | undefined;
  'aria-invalid': boolean | undefined;
}

export function Field(props: FieldProps & { children: (wiring: Wiring) => ComponentChildren }) {
  const id = useId();
  const { label, hint, error, wide } = props;
  return (
    <div class={`field${wide ? ' wide' : ''}${error ? ' invalid' : ''}`}>
      <label for={id}>{label}</label>
      {props.children({
        id,
        'aria-describedby': error || hint ? `${id}-note` : undefined,
        'aria-invalid': error ? true : undefined,
      })}
      {(error || hint) && (
        <p id={`${id}-note`} class="note" role={error ? 'alert' : undefined}>
          {error || hint}
        </p>
      )}
    </div>
  );
}

interface TextProps extends FieldProps {
  value: string;
  onInput(value: string): void;
  type?: 'text' | 'password' | 'date';
  placeholder?: string;
  required?: boolean;
  autoFocus?: boolean;
  autoComplete?: string;
  pattern?: string;
  rows?: number;
  list?: string[];
}

export function TextField(props: TextProps) {
  const { value, onInput, rows, list } = props;
  return (
    <Field {...props}>
      {(wiring) =>
        rows ? (
          <textarea
            {...wiring}
            rows={rows}
            value={value}
            placeholder={props.placeholder}
            spellcheck={false}
            onInput={(e) => onInput(e.currentTarget.value)}
          />
        ) : (
          <>
            <input
              {...wiring}
              type={props.type ?? 'text'}
              value={value}
              placeholder={props.placeholder}
              required={props.required}
              pattern={props.pattern}
              autoComplete={props.autoComplete ?? 'off'}
              autoFocus={props.autoFocus}
              data-autofocus={props.autoFocus ? '' : undefined}
              list={list ? `${wiring.id}-list` : undefined}
              spellcheck={false}
              onInput={(e) => onInput(e.currentTarget.value)}
            />
            {list && (
              <datalist id={`${wiring.id}-list`}>
                {list.map((item) => (
                  <option key={item} value={item} />
                ))}
              </datalist>
            )}
          </>
        )
      }
    </Field>
  );
}

interface NumberProps extends FieldProps {
  value: number | null;
  onInput(value: number | null): void;
  min?: number;
  max?: number;
  unit?: string;
  placeholder?: string;
}

export function NumberField(props: NumberProps) {
  return (
    <Field {...props}>
      {(wiring) => (
        <span class="with-unit">
          <input
            {...wiring}
            type="number"
            inputMode="numeric"
            min={props.min}
            max={props.max}
            placeholder={props.placeholder}
            value={props.value ?? ''}
            onInput={(e) =>
              props.onInput(e.currentTarget.value === '' ? null : e.currentTarget.valueAsNumber)
            }
          />
          {props.unit && <span class="unit">{props.unit}</span>}
        </span>
      )}
    </Field>
  );
}

interface SizeProps extends FieldProps {
  value: number;
  onInput(value: number): void;
  min?: number;
  presets?: number[];
}

/** A size in bytes, written as people do: "4 GiB", "512M". */
export function SizeField(props: SizeProps) {
  const [text, setText] = useState<string | null>(null);
  const typed = text === null ? null : parseSize(text);
  const wrong =
    text !== null && (typed === null || typed < (props.min ?? 1))
      ? `A size like "8 GiB"${props.min ? `, ${bytes(props.min)} at least` : ''}.`
      : null;
  return (
    <Field {...props} error={wrong ?? props.error}>
      {(wiring) => (
        <span class="size-field">
          <input
            {...wiring}
            type="text"
            value={text ?? bytes(props.value)}
            onInput={(e) => {
              setText(e.currentTarget.value);
              const size = parseSize(e.currentTarget.value);
              if (size !== null && size >= (props.min ?? 1)) props.onInput(size);
            }}
            onBlur={() => !wrong && setText(null)}
          />
          {props.presets?.map((preset) => (
            <button
              type="button"
              key={preset}
              class={`chip${preset === props.value ? ' on' : ''}`}
              aria-pressed={preset === props.value}
              onClick={() => {
                setText(null);
                props.onInput(preset);
              }}
            >
              {bytes(preset)}
            </button>
          ))}
        </span>
      )}
    </Field>
  );
}

interface SelectProps extends FieldProps {
  value: string;
  onInput(value: string): void;
  options: { value: string; label: string; disabled?: boolean }[];
}

export function SelectField(props: SelectProps) {
  return (
    <Field {...props}>
      {(wiring) => (
        <select
          {...wiring}
          value={props.value}
          onInput={(e) => props.onInput(e.currentTarget.value)}
        >
          {props.options.map((o) => (
            <option key={o.value} value={o.value} disabled={o.disabled}>
              {o.label}
            </option>
          ))}
        </select>
      )}
    </Field>
  );
}

interface CheckProps {
  label: string;
  hint?: string;
  checked: boolean;
  disabled?: boolean;
  onInput(checked: boolean): void;
}

export function CheckField({ label, hint, checked, disabled, onInput }: CheckProps) {
  return (
    <label class="check">
      <input
        type="checkbox"
        checked={checked}
        disabled={disabled}
        onInput={(e) => onInput(e.currentTarget.checked)}
      />
      <span>
        {label}
        {hint && <small>{hint}</small>}
      </span>
    </label>
  );
}
