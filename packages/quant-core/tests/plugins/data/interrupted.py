"""Stands for a user who interrupts a slow import; used by test_an_interrupt_by_the_user_passes_through."""

raise KeyboardInterrupt
