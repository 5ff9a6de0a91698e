import react from "@vitejs/plugin-react";
import { defineConfig } from "vite";

export default defineConfig({
  plugins: [react()],
  // The library is linked from its folder here, and has a copy of its own there.
  resolve: { dedupe: ["@icp-sdk/core"] },
  server: {
    // Calls go to the page's own origin and on to the local network: no CORS.
    proxy: { "/api": process.env.NETWORK ?? "http://localhost:4943" },
  },
});
