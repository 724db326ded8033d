/** Four panes of a window, one of them lit. */
export function Logo({ size = 24 }: { size?: number }) {
  return (
    <svg width={size} height={size} viewBox="0 0 32 32" aria-hidden="true" class="logo">
      <rect width="32" height="32" rx="7" fill="#2f57d0" />
      <rect x="7" y="6" width="7.5" height="12" rx="1.5" fill="#fff" />
      <rect x="17.5" y="6" width="7.5" height="12" rx="1.5" fill="#fff" opacity=".55" />
      <rect x="7" y="20.5" width="7.5" height="5.5" rx="1.5" fill="#fff" opacity=".55" />
      <rect x="17.5" y="20.5" width="7.5" height="5.5" rx="1.5" fill="#fff" opacity=".8" />
    </svg>
  );
}
