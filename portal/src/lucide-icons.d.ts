// Single icons of lucide-preact (vite.config.ts says where they are).
declare module 'lucide-icons/*' {
  import type { LucideIcon } from 'lucide-preact';
  const icon: LucideIcon;
  export default icon;
}
