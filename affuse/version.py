"""The version of affuse, kept with everything it makes."""

VERSION = "0.1.0"
