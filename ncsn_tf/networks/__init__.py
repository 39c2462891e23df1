from ncsn_tf import backend

backend.require_tensorflow()
