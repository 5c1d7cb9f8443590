"""Installers, one file for each way to install."""
