"""The contract of embedding methods as tests, for methods of your own.

    pytest --plugin my_method.py

runs them over every form of every method that the file defines; `pytest --pyargs bitfold.testing`
over every method that is installed. `docs/extending.md` says what they hold a method to.

plugin       the options of pytest; all that an installed bitfold adds to other people's tests
cases        what is tried: a method, a form, fields, ids, bags
fixtures     `case`, and which tests take every form
checks       what several tests compare
test_*       the contract
"""
