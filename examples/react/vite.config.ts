import react from '@vitejs/plugin-react';
import { defineConfig } from 'vite';

// `base` is relative, so that the built page works from any folder of a web server.
export default defineConfig({ plugins: [react()], base: './' });
