"""The contract's cases and fixtures, for the tests in this folder."""

from bitfold.testing.fixtures import cases as cases
from bitfold.testing.fixtures import pytest_configure as pytest_configure
from bitfold.testing.fixtures import pytest_generate_tests as pytest_generate_tests
from bitfold.testing.fixtures import small as small
from bitfold.testing.fixtures import threads as threads
