"""Views to play with: pages that need no kernel, and panels that ask one."""
