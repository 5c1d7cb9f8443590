"""Authoring of TUF and Uptane metadata; signers and the time come from outside."""
