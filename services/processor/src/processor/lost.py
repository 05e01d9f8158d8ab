"""What is said of a state that can't be used, everywhere in the same words."""

WAY_OUT = (
    "restore RECOVERY_DIR, or build its state again: `tillstream rebuild --force` takes what the stream no longer has "
    "from S3, and keeps what is in RECOVERY_DIR beside it; removing RECOVERY_DIR is enough while the stream still "
    "holds all that the longest window needs"
)
"""Ends each such message."""
